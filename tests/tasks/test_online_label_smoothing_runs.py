"""Soft labels in a run: they learn, are kept, and go on where a run was stopped."""

import pytest
import torch

import foveal
from foveal.config import AugmentConfig
from foveal.tasks import make_setup
from foveal.tasks.checkpointing import RunInterrupted

LOSS = "loss."


@pytest.fixture
def config(config, replaced):
    """Return a run whose soft labels change from epoch to epoch."""
    return replaced(config, loss="online_label_smoothing", augment=AugmentConfig(min_scale=0.5))


def loss_state(folder):
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return {k.removeprefix(LOSS): v for k, v in state.items() if k.startswith(LOSS)}


def test_each_epoch_makes_soft_labels_and_the_checkpoint_holds_them(config, replaced):
    state = loss_state(foveal.train(replaced(config, epochs=6, lr=1e-2)).path)
    assert state["epoch"] == 6
    assert state["soft_labels"].sum(1).tolist() == pytest.approx([1, 1, 1])
    assert (state["soft_labels"].diagonal() > 0.4).all()  # three colours are learned by then
    assert state["seen"] == 0


def test_a_run_stopped_in_an_epoch_goes_on_with_matrix_and_counts(
    config, replaced, tmp_path, monkeypatch, interrupt_after
):
    whole = foveal.train(replaced(config, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)  # three of five batches of the second epoch
        with pytest.raises(RunInterrupted):
            foveal.train(config)
    stopped = loss_state(tmp_path / "run")
    assert (stopped["epoch"], stopped["seen"]) == (1, 3)
    assert stopped["count"].any()
    run = foveal.train(config, resume=True)
    resumed, expected = loss_state(run.path), loss_state(whole.path)
    assert all(value.equal(resumed[key]) for key, value in expected.items())
    assert run.metrics == whole.metrics


def test_the_tested_task_has_its_soft_labels_when_only_the_test_was_missing(
    config, replaced, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        "foveal.tasks.classify.ClassifySetup.figures",
        lambda self, task, folder: drawn.append(task.loss.soft_labels.clone()) or [],
    )
    path = foveal.train(config).path
    (path / "metrics.json").unlink()
    foveal.train(config, resume=True)
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].eq(1 / 3).all()


def test_mixed_pictures_are_collected_by_their_shares(config, replaced):
    mixing = replaced(config, augment=AugmentConfig(mixup=0.4, cutmix=1.0))
    assert make_setup(mixing).task().loss.mixed == "weighted"
    skipping = replaced(mixing, loss_args={"mixed": "skip"})
    assert make_setup(skipping).task().loss.mixed == "skip"
    assert make_setup(config).task().loss.mixed == "skip"
    state = loss_state(foveal.train(replaced(mixing, epochs=6, lr=1e-2)).path)
    assert state["soft_labels"].sum(1).tolist() == pytest.approx([1, 1, 1])
    assert (state["soft_labels"] != 1 / 3).any()


def test_accumulated_steps_collect_every_batch(config, replaced, monkeypatch):
    seen = []
    original = foveal.losses.OnlineLabelSmoothing.next_epoch

    def next_epoch(self):
        seen.append(int(self.seen))
        original(self)

    monkeypatch.setattr(foveal.losses.OnlineLabelSmoothing, "next_epoch", next_epoch)
    foveal.train(replaced(config, accumulate=3))
    assert seen == [5, 5, 5]  # of 30 pictures in batches of 6


def test_autocast_trains_and_collects(config, replaced):
    state = loss_state(foveal.train(replaced(config, amp="bf16")).path)
    assert state["soft_labels"].dtype == torch.float32
    assert state["soft_labels"].sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
