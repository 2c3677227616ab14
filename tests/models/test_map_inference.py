"""Scales and tiles of networks that are functions of single pixels, worked out by hand."""

import pytest
import torch
from torch.nn.functional import interpolate

from foveal.models.map_inference import picture_maps

TASKS = ("saliency", "edge", "skeleton")


class Pointwise:
    """Logits of a pixel from its colours: task k's fused ones are colour k, its side maps differ.

    Remembers what it was asked.
    """

    def __init__(self):
        self.calls = []

    def __call__(self, x, tasks, *, sides):
        assert sides
        self.calls.append((tuple(x.shape), tuple(tasks)))
        fused = {task: x[:, k : k + 1] for k, task in enumerate(TASKS)}
        return {task: (fused[task], -2 * fused[task], fused[task] + 1) for task in tasks}


def picture(height=30, width=41, seed=0):
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))


def look(x, **scales):
    """Return the maps of one picture, unstretched."""
    (found,) = picture_maps(Pointwise(), [x], scales, stretch=False)
    return found


def mean_of_sides(logits):
    return (logits.sigmoid() + (-2 * logits).sigmoid() + (logits + 1).sigmoid()) / 3


def spanning(values):
    return (values - values.min()) / (values.max() - values.min())


def test_edges_are_the_mean_of_all_maps_and_others_the_fused_one():
    x = picture()
    found = look(x, skeleton=(1,), saliency=(1,), edge=(1,))
    assert list(found) == ["skeleton", "saliency", "edge"]
    torch.testing.assert_close(found["saliency"], x[0].sigmoid())
    torch.testing.assert_close(found["edge"], mean_of_sides(x[1]))
    torch.testing.assert_close(found["skeleton"], x[2].sigmoid())


@pytest.mark.parametrize("stretch", [False, True])
def test_scales_are_averaged_each_at_the_pictures_size(stretch):
    x = picture()
    scales = {"edge": (0.5, 1, 2), "skeleton": (0.5,), "saliency": (1, 2)}
    (found,) = picture_maps(Pointwise(), [x], scales, stretch=stretch)
    of_scale = {
        scale: interpolate(x[None], size, mode="bilinear", align_corners=False)[0]
        for scale, size in ((0.5, (15, 20)), (1, (30, 41)), (2, (60, 82)))
    }  # 20.5 pixels are 20: halves go to the even number

    def mean(task, channel, squash):
        maps = []
        for scale in scales[task]:
            values = squash(of_scale[scale][channel])
            values = spanning(values) if stretch and task != "saliency" else values
            maps.append(interpolate(values[None, None], (30, 41), mode="bilinear")[0, 0])
        return sum(maps) / len(maps)

    torch.testing.assert_close(found["edge"], mean("edge", 1, mean_of_sides))
    torch.testing.assert_close(found["skeleton"], mean("skeleton", 2, torch.sigmoid))
    torch.testing.assert_close(found["saliency"], mean("saliency", 0, torch.sigmoid))


def test_each_scale_is_looked_at_once_for_all_tasks_that_want_it():
    model = Pointwise()
    list(picture_maps(model, [picture(20, 30)], {"saliency": (1,), "edge": (2, 1)}))
    assert model.calls == [
        ((1, 3, 20, 30), ("saliency", "edge")),
        ((1, 3, 40, 60), ("edge",)),
    ]


@pytest.mark.parametrize("tile", [1, 3, 8, 12, 20, 64])
def test_tiles_of_a_network_of_single_pixels_equal_the_whole(tile):
    x, scales = picture(12, 23), dict.fromkeys(TASKS, (0.5, 1.0))
    model = Pointwise()
    (whole,) = picture_maps(Pointwise(), [x], scales)
    (tiled,) = picture_maps(model, [x], scales, tile=tile)
    for task in TASKS:
        torch.testing.assert_close(tiled[task], whole[task])
    assert max(max(shape[-2:]) for shape, _ in model.calls) <= tile or tile == 64


def test_tiles_fade_into_each_other():
    """A network that tells the place in the tile shows how tiles are weighed."""

    def place(x, tasks, *, sides):
        column = torch.arange(x.shape[-1], dtype=torch.float32).expand(1, 1, *x.shape[-2:])
        return {"saliency": (column,)}

    (found,) = picture_maps(place, [torch.zeros(1, 1, 7)], {"saliency": (1,)}, tile=4)
    # Tiles begin at 0 and 3; weights rise and fall, 1, 2, 2, 1: at column 3 both have 1.
    p = torch.arange(4.0).sigmoid()
    expected = torch.stack([p[0], p[1], p[2], (p[3] + p[0]) / 2, p[1], p[2], p[3]])
    torch.testing.assert_close(found["saliency"][0], expected)


def test_a_constant_map_keeps_its_value():
    x = torch.full((3, 9, 9), 0.7)
    (found,) = picture_maps(Pointwise(), [x], dict.fromkeys(TASKS, (1, 2)))
    assert found["skeleton"].shape == (9, 9)
    torch.testing.assert_close(found["skeleton"], torch.full((9, 9), 0.7).sigmoid())
    torch.testing.assert_close(found["edge"], mean_of_sides(torch.full((9, 9), 0.7)))


@pytest.mark.parametrize("stretch", [False, True])
def test_what_is_not_a_number_stays_so(stretch):
    x = picture()
    x[1:, 4, 5] = torch.nan
    (found,) = picture_maps(Pointwise(), [x], dict.fromkeys(TASKS, (1,)), stretch=stretch)
    assert found["edge"][4, 5].isnan()
    assert found["skeleton"][4, 5].isnan()
    assert found["saliency"].isfinite().all()


def test_pictures_of_any_size_one_after_the_other():
    pictures = [picture(1, 1), picture(1, 40), picture(25, 3)]
    scales = {"edge": (0.25, 1.5), "saliency": (0.25,)}
    for x, found in zip(pictures, picture_maps(Pointwise(), pictures, scales), strict=True):
        for values in found.values():
            assert values.shape == x.shape[1:]
            assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize(("scales", "tile"), [((0.0,), 0), ((1.0, -1.0), 0), ((1.0,), -1)])
def test_wrong_scales_and_tiles(scales, tile):
    with pytest.raises(ValueError, match="scales must be above 0 and tile at least 0"):
        list(picture_maps(Pointwise(), [picture()], {"edge": scales}, tile=tile))
