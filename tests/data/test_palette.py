import numpy as np
import pytest
from PIL import Image

from foveal.data.palette import overlay, voc_palette


def test_first_colours_are_those_of_vocs_masks():
    # Written out in VOC's development kit.
    assert voc_palette(10).tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
        [0, 128, 128],
        [128, 128, 128],
        [64, 0, 0],
        [192, 0, 0],
    ]
    assert voc_palette(256)[255].tolist() == [224, 224, 192]
    assert voc_palette(2, first=1).tolist() == [[128, 0, 0], [0, 128, 0]]


def test_colours_differ():
    assert len(np.unique(voc_palette(256), axis=0)) == 256


def test_real_masks_have_these_colours(pack):
    folder = pack("mini-voc") / "VOCdevkit/VOC2012/SegmentationClass"
    with Image.open(next(iter(sorted(folder.iterdir())))) as mask:
        stored = np.array(mask.getpalette()).reshape(-1, 3)
    assert stored[:21].tolist() == voc_palette(21).tolist()
    assert stored[255].tolist() == voc_palette(256)[255].tolist()


def test_colours_are_laid_over_and_what_is_ignored_is_pale():
    image = Image.new("RGB", (3, 1), (100, 50, 0))
    laid = overlay(image, np.array([[0, 1, 255]]), voc_palette(2))
    # 2/5 of the picture, 3/5 of the colour; white for 255
    assert laid.tolist() == [[[40, 20, 0], [116, 20, 0], [193, 173, 153]]]
    with pytest.raises(ValueError, match="broadcast"):
        overlay(image, np.zeros((2, 2), int), voc_palette(2))
