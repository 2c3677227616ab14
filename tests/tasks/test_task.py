"""What every task's module does with its network before training."""

import pytest
import torch

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
