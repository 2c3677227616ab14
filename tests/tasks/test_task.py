"""What every task's module does with its network before training."""

import csv

import pytest
import torch

import foveal
from foveal.tasks import make_setup


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_weights_have_the_same_memory_format_in_training_and_evaluation(
    config, replaced, channels_last, training
):
    """Else the convolutions round differently, and evaluating a run gives other numbers."""
    task = make_setup(replaced(config, channels_last=channels_last)).task(training=training)
    for model in (task.model, task.evaluated_model):
        weight = model.conv_stem.weight  # [16, 3, 3, 3]
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        assert weight.is_contiguous() != channels_last


def test_multistep_lowers_the_rate_after_its_milestones(config, replaced):
    """One step per epoch here: the rate of step t is that of epoch t."""
    task = make_setup(
        replaced(
            config,
            batch_size=30,
            epochs=6,
            lr=0.8,
            schedule="multistep",
            milestones=(2, 3),
            decay_rate=0.5,
            warmup_epochs=0.0,
        )
    ).task()
    assert task.steps_per_epoch == 1
    found = task.configure_optimizers()
    optimizer, scheduler = found["optimizer"], found["lr_scheduler"]["scheduler"]
    rates = []
    for step in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step + 1)
    assert rates == pytest.approx([0.8, 0.8, 0.4, 0.2, 0.2, 0.2])


def test_the_history_has_the_rate_that_an_epoch_ended_with(config, replaced):
    steps = {"schedule": "multistep", "milestones": (1,), "warmup_epochs": 0.0}
    run = foveal.train(replaced(config, epochs=3, lr=0.01, **steps))
    with (run.path / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.01, 0.001, 0.001])
