"""Sliding windows against the protocol written out in NumPy."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from foveal.models.sliding_window import class_probabilities, most_probable

SIZES = [(20, 30), (9, 7), (30, 20), (16, 16), (1, 40), (17, 12)]
K = 3


class PlaceDependent(nn.Module):
    """Logits that depend on the pixel, on its place in the window and on the window's contents."""

    def forward(self, x):
        rows = torch.arange(x.shape[2], dtype=x.dtype).view(-1, 1) / 7
        columns = torch.arange(x.shape[3], dtype=x.dtype).sin()
        mean = x.mean((2, 3), keepdim=True)
        return torch.cat([x[:, :1] + rows, x[:, 1:2] * columns, x[:, 2:] + 5 * mean[:, :1]], 1)


def pictures(seed=0):
    rng = np.random.default_rng(seed)
    return [torch.as_tensor(rng.normal(size=(3, *size))).float() for size in SIZES]


def resized(x, size):
    """Bilinear with half-pixel centres, clamped at the border."""
    for axis, length in ((1, size[0]), (2, size[1])):
        old = x.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (place - low).reshape([-1, 1] if axis == 1 else [-1])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def softmax(x):
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def by_hand(x, window, stride, scales, flip, long_side):
    own = x.shape[1:]
    total = np.zeros((K, *own))
    for scale in scales:
        long = round((long_side or max(own)) * scale)
        height, width = (max(1, round(side * long / max(own))) for side in own)
        small = resized(x, (height, width))
        below, beside = max(0, window - height), max(0, window - width)
        corner = below // 2, beside // 2
        padded = np.pad(
            small, [(0, 0), (corner[0], below - corner[0]), (corner[1], beside - corner[1])]
        )
        sums, counts = np.zeros((K, *padded.shape[1:])), np.zeros(padded.shape[1:])
        rows, columns = (
            [min(i * stride, side - window) for i in range(math.ceil((side - window) / stride) + 1)]
            for side in padded.shape[1:]
        )
        for row in rows:
            for column in columns:
                part = padded[:, row : row + window, column : column + window]
                p = seen = 0
                for mirror in (1, -1) if flip else (1,):
                    y = PlaceDependent()(torch.tensor(part[:, :, ::mirror].copy())[None])[0].numpy()
                    p, seen = p + softmax(y)[:, :, ::mirror], seen + 1
                sums[:, row : row + window, column : column + window] += p / seen
                counts[row : row + window, column : column + window] += 1
        mean = (sums / counts)[:, corner[0] : corner[0] + height, corner[1] : corner[1] + width]
        total += resized(mean, own)
    return total / len(scales)


@pytest.mark.parametrize(
    ("window", "stride", "scales", "flip", "long_side"),
    [
        (16, 11, (1.0,), True, None),
        (16, 11, (1.0,), False, None),
        (16, 11, (0.5, 1.0, 1.75), True, None),
        (16, 11, (1.0,), True, 33),
        (8, 8, (0.75,), True, 24),
        (40, 27, (1.0, 1.25), True, None),
    ],
)
def test_the_protocol_by_hand(window, stride, scales, flip, long_side):
    arguments = {"window": window, "scales": scales, "flip": flip, "long_side": long_side}
    found = class_probabilities(PlaceDependent(), pictures(), stride=stride, **arguments)
    for x, p in zip(pictures(), found, strict=True):
        expected = by_hand(x.double().numpy(), stride=stride, **arguments)
        assert p.shape == expected.shape
        np.testing.assert_allclose(p.numpy(), expected, atol=2e-6)
        np.testing.assert_allclose(p.sum(0).numpy(), 1, atol=1e-5)


def test_the_defaults_are_the_papers():
    """Stride two thirds of the window, rounded up; mirror image; one scale."""
    expected = class_probabilities(
        PlaceDependent(), pictures(), window=16, stride=11, scales=(1.0,), flip=True
    )
    for a, b in zip(
        class_probabilities(PlaceDependent(), pictures(), window=16), expected, strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("window_batch", [2, 3, 7, 100])
def test_the_window_batch_changes_nothing(window_batch):
    arguments = {"window": 8, "scales": (0.75, 1.5)}
    one = class_probabilities(PlaceDependent(), pictures(), window_batch=1, **arguments)
    several = class_probabilities(
        PlaceDependent(), pictures(), window_batch=window_batch, **arguments
    )
    for a, b in zip(one, several, strict=True):
        assert torch.equal(a, b)


def test_windows_of_several_pictures_go_together():
    sizes = []

    def record(module, arguments):
        sizes.append(tuple(arguments[0].shape))

    model = PlaceDependent()
    model.register_forward_pre_hook(record)
    small = [torch.rand(3, 8, 8) for _ in range(5)]
    assert len(list(class_probabilities(model, small, window=8, window_batch=4, flip=False))) == 5
    assert sizes == [(4, 3, 8, 8), (1, 3, 8, 8)]


def test_the_whole_picture_at_once():
    for x, p in zip(pictures(), class_probabilities(PlaceDependent(), pictures()), strict=True):
        straight = PlaceDependent()(x[None]).softmax(1)
        mirrored = PlaceDependent()(x.flip(2)[None]).softmax(1).flip(3)
        torch.testing.assert_close(p, (straight + mirrored)[0] / 2)


def test_a_picture_is_yielded_before_the_last_is_read():
    read = []

    def source():
        for i in range(10):
            read.append(i)
            yield torch.rand(3, 8, 8)

    found = class_probabilities(PlaceDependent(), source(), window=8, window_batch=2)
    next(found)
    assert len(read) == 3


def test_pixels_without_numbers_have_no_class():
    p = torch.tensor([[[0.2, math.nan, 0.9]], [[0.8, math.nan, 0.1]]])
    assert most_probable(p).tolist() == [[1, -1, 0]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": -1},
        {"window": 8, "stride": 9},
        {"window": 8, "stride": 0},
        {"window": 8, "window_batch": 0},
    ],
)
def test_windows_that_cannot_be(arguments):
    with pytest.raises(ValueError, match="window must be at least 0, stride in"):
        next(class_probabilities(PlaceDependent(), pictures(), **arguments))


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (math.inf,), (math.nan,)])
def test_scales_that_cannot_be(scales):
    with pytest.raises(ValueError, match="scales must be numbers above 0"):
        next(class_probabilities(PlaceDependent(), pictures(), scales=scales))


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.MaxPool2d(2), r"not \[1, 3, 10, 15\]: is it a dense network, in eval mode\?"),
        (lambda x: (x, x), "not tuple: is it"),
        (nn.Flatten(), r"not \[1, 1800\]"),
    ],
)
def test_a_network_that_is_not_dense(model, found):
    with pytest.raises(ValueError, match=rf"logits \[B, K, 20, 30\] .* {found}"):
        next(class_probabilities(model, pictures()[:1]))


MEASURE = """
import resource, torch
from foveal.models.sliding_window import class_probabilities
torch.set_num_threads(1)
x = torch.rand(19, 1024, 2048)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scales, batch = {scales}, {batch}
next(class_probabilities(torch.nn.Identity(), [x], window=512, scales=scales, window_batch=batch))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in Linux's units")
def test_memory_is_that_of_few_maps():
    """Of a 2048x1024 picture of 19 classes, whose map has 152 MiB, in a process of its own.

    15 windows of 19 MiB each, and as many mirror images, would be 570 MiB if they were kept.
    """
    program = MEASURE.format(scales=(1.0,), batch=1)
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 2 * 152 + 6 * 19
