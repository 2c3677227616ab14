"""Preprocessing against values by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.config import AugmentConfig
from foveal.data.transforms import Preprocess, TrainTransform


def flat(color, size=(20, 10)):
    return Image.new("RGB", size, color)


def test_a_flat_picture_becomes_its_normalised_colour():
    pre = Preprocess(4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    x = pre(flat((255, 0, 51)))
    assert x.shape == (3, 4, 4)
    assert x.dtype == torch.float32
    expected = torch.tensor([(1 - 0.5) / 0.25, -1.0, 0.2 - 0.5])
    assert torch.allclose(x[:, 0, 0], expected, atol=1e-6)
    assert torch.allclose(x, x[:, :1, :1].expand_as(x))


def test_the_middle_square_is_kept():
    array = np.zeros((10, 30, 3), np.uint8)
    array[:, 10:20] = 255
    x = Preprocess(10, mean=(0, 0, 0), std=(1, 1, 1))(Image.fromarray(array))
    assert torch.equal(x, torch.ones(3, 10, 10))


def test_crop_pct_cuts_the_border():
    array = np.zeros((16, 16, 3), np.uint8)
    array[4:12, 4:12] = 255
    x = Preprocess(8, (0, 0, 0), (1, 1, 1), crop_pct=0.5)(Image.fromarray(array))
    assert torch.equal(x, torch.ones(3, 8, 8))


def test_grey_networks_get_one_channel():
    pre = Preprocess(4, mean=(0.0,), std=(1.0,))
    assert pre.channels == 1
    assert pre(flat((10, 10, 10))).shape == (1, 4, 4)


def test_fields_survive_json():
    pre = Preprocess(48, crop_pct=0.9, interpolation="bicubic")
    assert Preprocess.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AugmentConfig(min_scale=1.0),
        AugmentConfig(min_scale=1.0, padding=4),
        AugmentConfig(vflip=0.5, color_jitter=0.4, randaugment=9, erasing=1.0),
    ],
)
@pytest.mark.parametrize("size", [(40, 30), (7, 50), (1, 1)])
def test_every_augmentation_gives_the_networks_shape(augment, size):
    x = TrainTransform(Preprocess(24), augment)(flat((100, 150, 200), size))
    assert x.shape == (3, 24, 24)
    assert torch.isfinite(x).all()


def test_without_randomness_training_sees_what_evaluation_sees():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8))
    pre = Preprocess(8)
    plain = TrainTransform(pre, AugmentConfig(min_scale=1.0, hflip=0.0))
    assert torch.equal(plain(image), pre(image))


def test_a_certain_mirror_image_is_one():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    pre = Preprocess(8)
    mirrored = TrainTransform(pre, AugmentConfig(min_scale=1.0, hflip=1.0))(image)
    assert torch.equal(mirrored, pre(image).flip(2))
