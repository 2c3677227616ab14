"""Comparing foveal's networks with references that are written from the descriptions."""

import torch
from torch import nn


def filled(module, seed=0):
    """Return the reference in float64 with statistics and biases away from 0 and 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if "running_var" in key:
                tensor.uniform_(0.5, 1.5)
            elif "running_mean" in key or key.endswith("bias"):
                tensor.normal_(0, 0.1)
    return module.double().eval()


def assert_same(ours, reference, x, training=1e-9):
    """Compare in float64, so that only a difference of structure can show.

    ``training`` is the tolerance of the pass in training mode.
    """
    ours = ours.double()
    torch.testing.assert_close(ours.eval()(x), reference.eval()(x), rtol=1e-9, atol=1e-9)
    for module in (ours, reference):
        module.train()
        for child in module.modules():
            if isinstance(child, nn.Dropout | nn.Dropout2d):
                child.p = 0.0
    ours.drop_rate = 0.0
    torch.testing.assert_close(ours(x), reference(x), rtol=training, atol=training)
