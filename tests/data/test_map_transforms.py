"""Changes of picture and maps against values by hand; all move alike, and lines stay lines."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from foveal.config import DENSE_TASKS, DenseAugmentConfig
from foveal.data.map_transforms import NO_LABEL, MapTrainTransform
from foveal.data.transforms import Preprocess

OFF = {"min_scale": 1.0, "max_scale": 1.0, "rotate": 0.0, "hflip": 0.0}
EIGHT = np.ones((3, 3), int)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def train(side, tasks=DENSE_TASKS, **changes):
    preprocess = Preprocess(side, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0))
    return MapTrainTransform(preprocess, DenseAugmentConfig(**{**OFF, **changes}), tasks)


def sample(height=24, width=36, seed=0):
    """Return a picture whose red is the saliency map, and maps of all tasks."""
    rng = np.random.default_rng(seed)
    saliency = rng.integers(0, 256, (height, width)).astype(np.uint8)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = saliency
    edge = rng.integers(0, 6, (height, width)).astype(np.float32) / 5
    skeleton = (rng.random((height, width)) < 0.1).astype(np.float32)
    maps = {"saliency": saliency.astype(np.float32) / 255, "edge": edge, "skeleton": skeleton}
    return Image.fromarray(pixels), maps


def red(x):
    return x[0].numpy() + 0.2


def line(points, size):
    """Return a line one pixel wide, [H, W] of 0 and 1."""
    image = Image.new("L", size)
    ImageDraw.Draw(image).line(points, fill=1, width=1)
    return np.asarray(image).astype(np.float32)


def pieces(lines):
    return ndimage.label(lines > 0, EIGHT)[1]


def test_a_picture_without_a_map_has_no_label_for_that_task():
    image, maps = sample()
    del maps["skeleton"]
    _, targets = train(16)(image, maps)
    assert list(targets) == list(DENSE_TASKS)
    assert (targets["skeleton"].shape, targets["skeleton"].dtype) == ((1, 16, 16), torch.float32)
    assert (targets["skeleton"] == NO_LABEL).all()
    assert (targets["edge"] != NO_LABEL).all()
    assert train(16, ["edge"])(image, maps)[1].keys() == {"edge"}


def test_nothing_on_is_a_random_crop_of_everything():
    image, maps = sample()
    transform, corners = train(16), set()
    for _ in range(40):
        x, targets = transform(image, maps)
        assert (x.shape, x.dtype) == ((3, 16, 16), torch.float32)
        top, left = next(
            (top, left)
            for top in range(9)
            for left in range(21)
            if (targets["edge"][0].numpy() == maps["edge"][top : top + 16, left : left + 16]).all()
        )
        here = slice(top, top + 16), slice(left, left + 16)
        assert (targets["skeleton"][0].numpy() == maps["skeleton"][here]).all()
        np.testing.assert_allclose(targets["saliency"][0], maps["saliency"][here], atol=1e-6)
        np.testing.assert_allclose(red(x), maps["saliency"][here], atol=1e-6)
        corners.add((top, left))
    assert len(corners) > 20
    assert {0, 8} <= {top for top, _ in corners}  # either end may be drawn


def test_a_crop_larger_than_the_picture_holds_all_of_it_and_the_rest_has_no_label():
    image, maps = sample(8, 16)
    transform, tops, lefts = train(40), set(), set()
    for _ in range(60):
        x, targets = transform(image, maps)
        labelled = targets["edge"][0] != NO_LABEL
        rows, columns = torch.nonzero(labelled, as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        here = slice(top, top + 8), slice(left, left + 16)
        assert int(labelled.sum()) == 8 * 16
        for task in DENSE_TASKS:
            np.testing.assert_allclose(targets[task][0][here], maps[task], atol=1e-6)
            assert (targets[task][0][~labelled] == -1).all()
        # The mean in whole steps of 1/255, less the mean.
        assert x[:, ~labelled].abs().max() <= 0.5 / 255 + 1e-6
        tops.add(top)
        lefts.add(left)
    assert min(tops) < 5 < 25 < max(tops) <= 32
    assert min(lefts) < 5 < 18 < max(lefts) <= 24


def test_a_mirror_turns_picture_and_maps():
    image, maps = sample(16, 16)
    x, targets = train(16, hflip=1.0)(image, maps)
    for task in DENSE_TASKS:
        np.testing.assert_allclose(targets[task][0], maps[task][:, ::-1], atol=1e-6)
    np.testing.assert_allclose(red(x), maps["saliency"][:, ::-1], atol=1e-6)


def test_missing_tasks_have_no_label_anywhere():
    image, maps = sample(30, 30)
    _, targets = train(16)(image, {"edge": maps["edge"]})
    assert (targets["saliency"] == -1).all()
    assert (targets["skeleton"] == -1).all()
    assert targets["saliency"].shape == (1, 16, 16)
    assert (targets["edge"] >= 0).all()


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.77, 0.9])
def test_shrinking_takes_the_largest_value_that_falls_on_a_pixel(factor):
    image, maps = sample(40, 60)
    height, width = round(factor * 40), round(factor * 60)
    transform = train(60, min_scale=factor, max_scale=factor)
    _, targets = transform(image, maps)
    for task in ("edge", "skeleton"):
        expected = np.zeros((height, width), np.float32)
        for y in range(40):
            for x in range(60):
                place = int((y + 0.5) * height / 40), int((x + 0.5) * width / 60)
                expected[place] = max(expected[place], maps[task][y, x])
        inside = targets[task][0][targets[task][0] != -1].reshape(height, width)
        np.testing.assert_array_equal(inside.numpy(), expected)


@pytest.mark.parametrize("factor", [2, 3])
def test_enlarging_repeats_values(factor):
    image, maps = sample(10, 12)
    _, targets = train(36, min_scale=factor, max_scale=factor)(image, maps)
    for task in ("edge", "skeleton"):
        inside = targets[task][0][targets[task][0] != -1].reshape(10 * factor, 12 * factor)
        expected = maps[task].repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_array_equal(inside.numpy(), expected)


LINES = {
    "flat": ([(10, 40), (109, 40)], (120, 90)),
    "steep": ([(10, 5), (50, 80)], (120, 90)),
    "diagonal": ([(10, 10), (80, 80)], (120, 90)),
    "corner": ([(20, 10), (100, 15), (60, 80), (20, 10)], (120, 90)),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("factor", [0.1, 0.25, 0.5, 0.8, 1.0, 1.2, 1.7, 2.0, 3.1])
@pytest.mark.parametrize("rotate", [0.0, 180.0])
def test_a_thin_line_stays_one_line(name, factor, rotate):
    points, size = LINES[name]
    drawn = line(points, size)
    assert pieces(drawn) == 1
    side = 60 + round(150 * factor)  # room for all of it at any angle
    transform = train(side, ["skeleton"], min_scale=factor, max_scale=factor, rotate=rotate)
    for seed in range(4):
        torch.manual_seed(seed)
        _, targets = transform(Image.new("RGB", size), {"skeleton": drawn})
        moved = targets["skeleton"][0].numpy()
        assert set(np.unique(moved)) == {-1, 0, 1}
        assert pieces(moved == 1) == 1
        # As long as before, and nowhere wider than the pixel's image and a pixel beside it.
        rows, columns = np.nonzero(moved == 1)
        old = np.nonzero(drawn)
        span = factor * np.hypot(np.ptp(old[0]), np.ptp(old[1]))
        assert np.hypot(np.ptp(rows), np.ptp(columns)) > 0.7 * span - 2
        widest = ndimage.distance_transform_edt(moved == 1).max()
        assert widest <= max(1.5, 1 + 0.75 * factor)


def test_without_care_a_line_would_be_lost():
    """Nearest pixels, as masks take them, lose the line that the test above keeps."""
    drawn = line(*LINES["flat"])
    kept = np.asarray(Image.fromarray(drawn).resize((60, 45), Image.Resampling.NEAREST))
    assert pieces(kept) == 0


def test_shares_of_annotators_are_not_mixed():
    drawn = 0.6 * line([(5, 20), (100, 30)], (120, 60)) + 0.2 * line(
        [(5, 50), (100, 50)], (120, 60)
    )
    transform = train(120, ["edge"], min_scale=0.6, max_scale=1.4, rotate=40)
    for seed in range(8):
        torch.manual_seed(seed)
        _, targets = transform(Image.new("RGB", (120, 60)), {"edge": drawn.astype(np.float32)})
        values = set(np.unique(targets["edge"].numpy()))
        assert values <= {-1, 0, np.float32(0.6), np.float32(0.2)}
        assert len(values) == 4


def blob(side=101):
    """Return a picture with a bright dot far from the middle, and a map with the same dot."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[48:53, 80:85] = 255
    spot = (pixels[..., 0] > 0).astype(np.float32)
    return Image.fromarray(pixels), {"saliency": spot, "edge": spot}


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4])
def test_pictures_and_maps_turn_and_scale_together(factor):
    image, maps = blob()
    transform = train(160, min_scale=factor, max_scale=factor, rotate=30, hflip=0.5)
    directions = set()
    for seed in range(60):
        torch.manual_seed(seed)
        x, targets = transform(image, maps)
        inside = (targets["edge"][0] != -1).double()
        grid = torch.meshgrid(*[torch.arange(160.0)] * 2, indexing="ij")
        weights = {
            "picture": (x[0].double() + 0.2) * inside,
            "saliency": targets["saliency"][0].double() * inside,
            "edge": targets["edge"][0].double() * inside,
            "inside": inside,
        }
        middle = {
            name: np.array([float((w * axis).sum() / w.sum()) for axis in grid])
            for name, w in weights.items()
        }
        assert np.abs(middle["picture"] - middle["saliency"]).max() < 0.3
        assert np.abs(middle["picture"] - middle["edge"]).max() < 0.6
        if not inside[0].any() and not inside[-1].any() and not inside[:, 0].any():
            away = middle["picture"] - middle["inside"]
            assert abs(np.hypot(*away) - 32 * factor) < 1  # a circle about the picture's middle
            directions.add(round(np.degrees(np.arctan2(*away))))
    if factor < 1:
        turned = sorted(d if abs(d) < 90 else d - 180 * np.sign(d) for d in directions)
        assert -31 <= turned[0] < -15
        assert 15 < turned[-1] <= 31


def test_a_positive_angle_turns_against_the_clock_and_half_the_pictures_stay():
    image, maps = blob()
    transform = train(101, ["saliency"], rotate=180)
    still = 0
    for seed in range(60):
        torch.manual_seed(seed)
        draws = torch.rand(6, dtype=torch.float64)
        torch.manual_seed(seed)
        _, targets = transform(image, maps)
        rows, columns = np.nonzero(targets["saliency"][0].numpy() > 0.5)
        angle = np.degrees(np.arctan2(50 - rows.mean(), columns.mean() - 50))
        if draws[1] < 0.5:
            expected = 180 * (2 * float(draws[2]) - 1)
            assert abs((angle - expected + 180) % 360 - 180) < 3
        else:
            assert abs(angle) < 1
            still += 1
    assert 15 < still < 45


def test_samples_depend_on_the_generator_alone():
    image, maps = sample(60, 80)
    transform = MapTrainTransform(Preprocess(48), DenseAugmentConfig(), DENSE_TASKS)
    results = []
    for seed in (3, 4, 3):
        torch.manual_seed(seed)
        results.append(transform(image, maps))
    (x, targets), (other, _), (again, same) = results
    assert torch.equal(x, again)
    assert all(torch.equal(targets[task], same[task]) for task in DENSE_TASKS)
    assert not torch.equal(x, other)
    # The maps that a picture has do not change how it is placed.
    torch.manual_seed(3)
    alone, only = transform(image, {"edge": maps["edge"]})
    assert torch.equal(alone, x)
    assert torch.equal(only["edge"], targets["edge"])


def test_factors_are_spread_between_the_two():
    image, maps = sample(80, 80)
    transform = train(200, ["edge"], min_scale=0.5, max_scale=2.0)
    sides = [
        int((transform(image, maps)[1]["edge"][0] != -1).any(0).sum()) / 80 for _ in range(200)
    ]
    assert 0.5 <= min(sides) < 0.55
    assert 1.95 < max(sides) <= 2.0
    assert abs(np.mean(sides) - 1.25) < 4 * 1.5 / np.sqrt(12 * 200)  # uniform


def test_grey_networks_and_tiny_pictures():
    image, maps = sample(16, 16)
    preprocess = Preprocess(16, mean=(0.5,), std=(0.5,))
    transform = MapTrainTransform(preprocess, DenseAugmentConfig(), DENSE_TASKS)
    for _ in range(8):  # some of them rotated
        assert transform(image, maps)[0].shape == (1, 16, 16)
    image, maps = sample(1, 1)
    x, targets = train(8, min_scale=0.2, max_scale=0.2)(image, maps)
    assert x.shape == (3, 8, 8)
    assert int((targets["edge"] != -1).sum()) == 1


def test_networks_that_want_blue_first_are_filled_with_their_mean():
    pixels = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    preprocess = Preprocess(16, mean=(0.1, 0.5, 0.9), std=(1.0, 1.0, 1.0), channel_order="bgr")
    transform = MapTrainTransform(preprocess, DenseAugmentConfig(**OFF), ["edge"])
    x, targets = transform(Image.fromarray(pixels), {"edge": np.ones((4, 4), np.float32)})
    inside = targets["edge"][0] == 1
    assert int(inside.sum()) == 16
    expected = torch.tensor([50, 100, 200]) / 255 - torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(x[:, inside].mean(1), expected, atol=1e-5, rtol=0)
    assert x[:, ~inside].abs().max() <= 0.5 / 255 + 1e-6


def test_an_empty_map_stays_empty():
    image, maps = sample(20, 20)
    _, targets = train(32, rotate=30)(image, {task: 0 * values for task, values in maps.items()})
    for task in DENSE_TASKS:
        assert set(np.unique(targets[task])) == {-1, 0}
