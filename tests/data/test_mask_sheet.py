import numpy as np
import pytest
from PIL import Image

from foveal.data import read_segmentation
from foveal.data.mask_sheet import mask_sheet


def shown(axes):
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_each_picture_stands_beside_its_mask(paint_pairs, paint_mask, tmp_path):
    paint_pairs("train/images", "train/masks", "abcde", [0, 2, 255])
    paint_pairs("val/images", "val/masks", "f", seed=9)
    data = read_segmentation(tmp_path)
    sheet = mask_sheet(data, count=9)
    drawn = [axes for axes in sheet.axes if axes.images]
    assert len(drawn) == 2 * 5
    stored = []
    for stem in "abcde":
        with Image.open(tmp_path / f"train/images/{stem}.png") as image:
            stored.append(np.asarray(image).astype(int))
    for plain, laid in zip(drawn[::2], drawn[1::2], strict=True):
        pixels = shown(plain).astype(int)
        assert any((pixels == picture).all() for picture in stored)
        # Rows 0, 1 and 2 have class 0, class 2 and the ignored value.
        assert (shown(laid)[0] == pixels[0]).all()
        for row, colour in ((1, (0, 128, 0)), (2, (224, 224, 192))):
            wanted = (0.4 * pixels[row] + 0.6 * np.array(colour)).round()
            assert (shown(laid)[row] == wanted).all()
    (legend,) = sheet.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "2"]


def test_what_cannot_be_shown(paint_pairs, tmp_path):
    paint_pairs("val/images", "val/masks", "ab")
    data = read_segmentation(tmp_path)
    assert len(mask_sheet(data, "val", count=1).axes) == 2
    with pytest.raises(ValueError, match="split train has no pictures"):
        mask_sheet(data)
    with pytest.raises(ValueError, match="needs at least one picture, not 0"):
        mask_sheet(data, "val", count=0)
