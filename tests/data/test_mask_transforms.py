"""Changes of picture and mask against values by hand; both move alike."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from foveal.config import SegmentAugmentConfig
from foveal.data.mask_transforms import MaskTrainTransform, WholePicture
from foveal.data.transforms import Preprocess

OFF = {"min_scale": 1.0, "max_scale": 1.0, "rotate": 0.0, "blur": 0.0, "hflip": 0.0}
PLAIN = Preprocess(16, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def train(preprocess=PLAIN, **changes):
    return MaskTrainTransform(preprocess, SegmentAugmentConfig(**{**OFF, **changes}))


def coded(height, width, block=8):
    """Return a picture of blocks whose red is ten times the label, and the labels."""
    blocks = np.random.default_rng(0).integers(0, 20, (height // block, width // block))
    labels = blocks.repeat(block, 0).repeat(block, 1).astype(np.uint8)
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    pixels[..., 0] = 10 * labels
    return Image.fromarray(pixels), labels


def red(x, preprocess=PLAIN):
    """Return the red channel in 0..255 of a normalised picture."""
    return (x[0] * preprocess.std[0] + preprocess.mean[0]) * 255


def test_whole_pictures_are_normalised_and_nothing_else():
    image, labels = coded(24, 40)
    labels[0, 0] = 255
    x, target = WholePicture(Preprocess(7, mean=(0.5, 0, 0), std=(0.25, 1, 1)))(image, labels)
    assert (x.shape, x.dtype) == ((3, 24, 40), torch.float32)
    assert (target.shape, target.dtype) == ((24, 40), torch.int64)
    assert (target.numpy() == labels).all()
    expected = (np.asarray(image)[..., 0] / 255 - 0.5) / 0.25
    np.testing.assert_allclose(x[0].numpy(), expected, atol=1e-5)


def test_nothing_on_is_a_random_crop():
    image, labels = coded(32, 48)
    corners = set()
    transform = train()
    for _ in range(40):
        x, target = transform(image, labels)
        assert (x.shape, x.dtype) == ((3, 16, 16), torch.float32)
        assert (target.shape, target.dtype) == ((16, 16), torch.int64)
        torch.testing.assert_close(red(x), 10.0 * target, atol=1e-3, rtol=0)
        places = [
            (top, left)
            for top in range(17)
            for left in range(33)
            if (labels[top : top + 16, left : left + 16] == target.numpy()).all()
        ]
        assert places
        corners.add(places[0])
    assert len(corners) > 20


def test_a_crop_larger_than_the_picture_holds_all_of_it_at_any_place():
    image, labels = coded(8, 16)
    tops, lefts = set(), set()
    transform = train(Preprocess(40, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0)))
    for _ in range(60):
        x, target = transform(image, labels)
        assert target.shape == (40, 40)
        rows, columns = torch.nonzero(target != 255, as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        assert (target[top : top + 8, left : left + 16].numpy() == labels).all()
        assert int((target == 255).sum()) == 40 * 40 - 8 * 16
        outside = x[:, target == 255]
        # The mean in whole steps of 1/255, less the mean.
        assert outside.abs().max() <= 0.5 / 255 + 1e-6
        tops.add(top)
        lefts.add(left)
    assert min(tops) < 5 < 25 < max(tops) <= 32
    assert min(lefts) < 5 < 18 < max(lefts) <= 24


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.3, 2.0, 3.0])
def test_scaling_keeps_picture_and_mask_together(factor):
    height, width = 40, 56
    image, labels = coded(height, width)
    size = (round(factor * height), round(factor * width))
    preprocess = Preprocess(max(size), mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0))
    x, target = train(preprocess, min_scale=factor, max_scale=factor)(image, labels)
    inside = target != 255
    rows = np.flatnonzero(inside.any(1).numpy())
    columns = np.flatnonzero(inside.any(0).numpy())
    assert (len(rows), len(columns)) == size
    scaled = target[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].numpy()
    # The pixel whose middle is nearest: floor((i + 1/2) / factor), exactly.
    take = [
        np.floor((np.arange(n) + 0.5) * whole / n).astype(int)
        for n, whole in zip(size, (height, width), strict=True)
    ]
    assert (scaled == labels[np.ix_(*take)]).all()
    # Far from the blocks' edges the picture has the value of its label.
    middles = [
        (np.arange(k // 8) * 8 + 4) * n / k for n, k in zip(size, (height, width), strict=True)
    ]
    picture = red(x)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].numpy()
    at = np.ix_(*(m.astype(int) for m in middles))
    np.testing.assert_allclose(picture[at], 10.0 * scaled[at], atol=1.01)


def test_factors_are_spread_between_the_two():
    image, labels = coded(80, 80)
    preprocess = Preprocess(200, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0))
    transform = train(preprocess, min_scale=0.5, max_scale=2.0)
    sides = [int((transform(image, labels)[1] != 255).any(0).sum()) / 80 for _ in range(200)]
    assert 0.5 <= min(sides) < 0.55
    assert 1.95 < max(sides) <= 2.0
    assert abs(np.mean(sides) - 1.25) < 4 * 1.5 / np.sqrt(12 * 200)  # uniform


def test_rotation_of_every_second_picture():
    """A dot far from the middle moves along a circle, in the picture as in the mask."""
    pixels = np.zeros((101, 101, 3), np.uint8)
    pixels[48:53, 88:93] = 255
    labels = (pixels[..., 0] > 0).astype(np.uint8)
    preprocess = Preprocess(101, mean=(0, 0, 0), std=(1.0, 1.0, 1.0))
    transform = train(preprocess, rotate=10.0)
    angles = []
    for _ in range(120):
        x, target = transform(Image.fromarray(pixels), labels)
        middles = []
        for weight in ((target == 1).double(), x[0].double()):
            rows, columns = torch.meshgrid(*[torch.arange(101) - 50.0] * 2, indexing="ij")
            middles.append([float((weight * c).sum() / weight.sum()) for c in (rows, columns)])
        assert np.allclose(middles[0], middles[1], atol=0.5)
        assert abs(np.hypot(*middles[1]) - 40) < 0.3
        angles.append(np.degrees(np.arctan2(*middles[1])))
        turned = abs(angles[-1]) > 1e-3
        assert turned or not (target == 255).any()
        assert (target[0, 0] == 255) == (abs(angles[-1]) > 1) or 1e-3 < abs(angles[-1]) < 1
    assert -10.1 < min(angles) < -8
    assert 8 < max(angles) < 10.1
    assert 35 < sum(abs(angle) < 1e-3 for angle in angles) < 85


def test_blur_is_the_authors_and_leaves_the_mask_alone():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[8, 8] = 255
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    preprocess = Preprocess(16, mean=(0, 0, 0), std=(1.0, 1.0, 1.0))
    x, target = train(preprocess, blur=1.0)(Image.fromarray(pixels), labels)
    assert (target.numpy() == labels).all()
    kernel = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.1**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    np.testing.assert_allclose(x[0, 6:11, 6:11].numpy(), kernel, atol=0.6 / 255)
    assert (x[0] > 0).sum() == 25


def test_blur_is_torchvisions_to_one_level():
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    preprocess = Preprocess(60, mean=(0, 0, 0), std=(1.0, 1.0, 1.0))
    x, target = train(preprocess, blur=1.0)(Image.fromarray(pixels), pixels[..., 0] // 2)
    inside = x[:, target != 255].reshape(3, 33, 47) * 255
    expected = v2.functional.gaussian_blur(torch.from_numpy(pixels).permute(2, 0, 1), 5, 1.1)
    assert (inside - expected).abs().max() < 1.01


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 1)])
def test_tiny_pictures_are_no_trouble(size):
    image, labels = Image.new("RGB", size, (51, 102, 153)), np.full(size[::-1], 3, np.uint8)
    transform = MaskTrainTransform(PLAIN, SegmentAugmentConfig(blur=1.0))
    for _ in range(10):
        x, target = transform(image, labels)
        # The picture has the mean colour, like what is around it.
        assert x.abs().max() < 1.01 / 255
        assert target.unique().tolist() in ([3, 255], [255])


def test_mirror_turns_both():
    image, labels = coded(16, 16)
    x, target = train(hflip=1.0)(image, labels)
    assert (target.numpy() == labels[:, ::-1]).all()
    torch.testing.assert_close(red(x), 10.0 * target, atol=1e-3, rtol=0)


def test_everything_on_keeps_picture_and_mask_together():
    image, labels = coded(96, 128, block=32)
    transform = MaskTrainTransform(
        Preprocess(64, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0)), SegmentAugmentConfig(blur=0)
    )
    for seed in range(20):
        torch.manual_seed(seed)
        x, target = transform(image, labels)
        away = (red(x) - 10.0 * target).abs()[target != 255]
        # Only pixels at the blocks' edges are mixtures.
        assert (away < 2).double().mean() > 0.75
        torch.manual_seed(seed)
        again = transform(image, labels)
        assert torch.equal(again[0], x)
        assert torch.equal(again[1], target)


def test_grey_networks_get_grey_pictures():
    image, labels = coded(16, 16)
    preprocess = Preprocess(16, mean=(0.5,), std=(0.5,))
    assert WholePicture(preprocess)(image, labels)[0].shape == (1, 16, 16)
    transform = MaskTrainTransform(preprocess, SegmentAugmentConfig())
    for _ in range(8):  # some of them rotated
        assert transform(image, labels)[0].shape == (1, 16, 16)


def test_a_picture_that_is_all_ignored_stays_so():
    image, labels = coded(16, 16)
    _, target = MaskTrainTransform(PLAIN, SegmentAugmentConfig())(image, labels * 0 + 255)
    assert (target == 255).all()


def test_where_no_picture_is_a_network_with_blue_first_sees_about_0():
    preprocess = Preprocess(
        64, mean=(0.2, 0.4, 0.8), std=(1 / 255,) * 3, channel_order="bgr"
    )  # all are whole numbers of 255
    image, labels = coded(16, 16)
    plain = SegmentAugmentConfig(min_scale=1.0, max_scale=1.0, rotate=0.0, blur=0.0, hflip=0.0)
    x, target = MaskTrainTransform(preprocess, plain)(image, labels)
    outside = x[:, target == 255]
    assert outside.shape[1] >= 64 * 64 - 16 * 16
    torch.testing.assert_close(outside, torch.zeros_like(outside), rtol=0, atol=1e-3)
