import numpy as np
from PIL import Image

from foveal.data.palette import voc_palette


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
