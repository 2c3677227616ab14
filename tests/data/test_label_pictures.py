import numpy as np
from PIL import Image

from foveal.data.label_pictures import IGNORED_COLOR, OPACITY, legend, overlay, palette_picture

LABELS = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
COLORS = np.array([(0, 0, 0), (200, 10, 20), (30, 40, 250)], np.uint8)


def test_a_palette_picture_keeps_the_labels_and_shows_the_colours(tmp_path):
    palette_picture(LABELS, COLORS).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), LABELS)
        shown = np.asarray(picture.convert("RGB"))
    for row in range(2):
        for column in range(3):
            k = LABELS[row, column]
            wanted = IGNORED_COLOR if k == 255 else tuple(COLORS[k])
            assert tuple(shown[row, column]) == wanted


def test_pixels_are_mixed_with_their_colours_and_black_leaves_them():
    image = Image.new("RGB", (3, 2), (100, 150, 50))
    tinted = np.asarray(overlay(image, LABELS, COLORS))
    assert tuple(tinted[0, 0]) == (100, 150, 50)
    for place, over in (((0, 1), COLORS[1]), ((1, 0), COLORS[2]), ((1, 1), IGNORED_COLOR)):
        wanted = [
            round((1 - OPACITY) * pixel + OPACITY * int(color))
            for pixel, color in zip((100, 150, 50), over, strict=True)
        ]
        assert tinted[place].tolist() == wanted


def test_a_legend_has_each_class_with_its_colour():
    patches = legend(("a", "b", "c"), COLORS)
    assert [patch.get_label() for patch in patches] == ["a", "b", "c"]
    assert [tuple(round(255 * v) for v in p.get_facecolor()[:3]) for p in patches] == [
        tuple(map(int, color)) for color in COLORS
    ]
