import numpy as np
import pytest
from PIL import Image

from foveal.data import read_dense
from foveal.data.map_sheet import map_sheet


def shown(axes):
    (image,) = axes.images
    return np.asarray(image.get_array())


@pytest.fixture
def data(paint, paint_mask, tmp_path):
    for k, stem in enumerate("abcde"):
        paint(f"train/images/{stem}.png", k)
        paint_mask(f"train/maps/{stem}.png", [0, 10 * k + 100, 255])
    paint("val/images/f.png", 9)
    paint_mask("val/maps/f.png", [0])
    return read_dense(tmp_path, task="edge")


def test_each_picture_stands_beside_its_map(data, tmp_path):
    sheet = map_sheet(data, count=9)
    assert len(sheet.axes) == 2 * 5
    stored = {}
    for stem in "abcde":
        with Image.open(tmp_path / f"train/images/{stem}.png") as image:
            stored[np.asarray(image).tobytes()] = ord(stem) - ord("a")
    for plain, beside in zip(sheet.axes[::2], sheet.axes[1::2], strict=True):
        k = stored.pop(shown(plain).tobytes())
        assert shown(beside).shape == (8, 10, 3)
        assert shown(beside)[:3, 0, 0].tolist() == [0, 10 * k + 100, 255]


def test_what_cannot_be_shown(data, tmp_path):
    assert len(map_sheet(data, "val", count=1).axes) == 2
    with pytest.raises(ValueError, match="needs at least one picture, not 0"):
        map_sheet(data, "val", count=0)
