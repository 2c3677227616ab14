"""Preprocessing against values by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.config import AugmentConfig
from foveal.data.transforms import Preprocess, TrainTransform, WholePreprocess


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


CAFFE = {"mean": (0.4, 0.45, 0.5), "std": (1 / 255,) * 3, "channel_order": "bgr"}


@pytest.mark.parametrize("kind", [Preprocess, WholePreprocess])
def test_blue_comes_first_where_a_network_wants_it(kind):
    x = kind(4, **CAFFE)(flat((51, 102, 255)))
    expected = torch.tensor([255 - 0.4 * 255, 102 - 0.45 * 255, 51 - 0.5 * 255])
    torch.testing.assert_close(x[:, 0, 0], expected, rtol=0, atol=1e-4)


def test_training_sees_the_same_order():
    augment = AugmentConfig(min_scale=1.0, hflip=0.0)
    image, pre = flat((51, 102, 255)), Preprocess(4, **CAFFE)
    assert torch.equal(TrainTransform(pre, augment)(image), pre(image))


def test_a_picture_comes_back_from_what_the_network_sees():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    rgb = torch.from_numpy(np.asarray(image)).permute(2, 0, 1) / 255
    for pre in (WholePreprocess(8), WholePreprocess(8, **CAFFE)):
        torch.testing.assert_close(pre.picture(pre(image)), rgb)


def test_padding_is_the_mean_in_the_pictures_order():
    assert Preprocess(8, mean=(0.4, 0.6, 0.8)).fill == [102, 153, 204]
    assert Preprocess(8, mean=(0.4, 0.6, 0.8), channel_order="bgr").fill == [204, 153, 102]
    assert Preprocess(8, mean=(0.4,), std=(1.0,), channel_order="bgr").fill == [102]


def test_other_orders_are_refused():
    with pytest.raises(ValueError, match="unknown channel_order 'brg': did you mean 'bgr'"):
        Preprocess(8, channel_order="brg")


def test_what_was_written_before_there_was_an_order_is_rgb():
    fields = Preprocess(48).to_dict()
    del fields["channel_order"]
    assert Preprocess.from_dict(fields) == Preprocess(48, channel_order="rgb")


def test_fields_survive_json():
    pre = Preprocess(48, crop_pct=0.9, interpolation="bicubic", channel_order="bgr")
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
