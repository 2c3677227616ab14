import os

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from foveal.exporting import ExportMismatchError, export, weights


class Tied(nn.Module):
    """Two layers with one weight, a NaN in a buffer, a counter, and half precision."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1).to(torch.bfloat16)
        self.again = nn.Conv2d(3, 3, 1)
        self.again.weight = self.conv.weight
        self.register_buffer("unused", torch.tensor([1.0, float("nan")]))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("empty", torch.empty(0, 2))
        self.register_buffer("scratch", torch.ones(1), persistent=False)

    def forward(self, x):
        return self.again(self.conv(x)).mean((2, 3))


def test_every_tensor_comes_back_bit_for_bit(tmp_path):
    model = Tied().to(memory_format=torch.channels_last)
    report = export(model, "safetensors", tmp_path / "net", image_size=8)
    assert report.path == tmp_path / "net.safetensors"
    assert [c.deviation for c in report.checks] == [0.0]
    assert report.dynamic == ()
    stored = load_file(report.path)
    assert stored.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert stored[key].dtype is value.dtype
        torch.testing.assert_close(stored[key], value, rtol=0, atol=0, equal_nan=True)


def test_a_changed_bit_is_found(tmp_path, monkeypatch):
    def damaged(tensors, metadata):
        tensors = {**tensors, "unused": tensors["unused"].nextafter(torch.tensor(2.0))}
        return save(tensors, metadata)

    monkeypatch.setattr(weights, "save", damaged)
    with pytest.raises(ExportMismatchError, match="tensor 'unused' changed"):
        export(Tied(), "safetensors", tmp_path / "net", image_size=8)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_readable_by_whom_the_umask_allows(tmp_path):
    umask = os.umask(0o022)
    try:
        report = export(Tied(), "safetensors", tmp_path / "net", image_size=8)
    finally:
        os.umask(umask)
    assert report.path.stat().st_mode & 0o777 == 0o644
