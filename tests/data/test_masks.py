import pickle

import numpy as np
import pytest
from PIL import Image

from foveal.data.masks import (
    ChosenMasks,
    MaskFiles,
    SizesDifferError,
    WrongLabelsError,
    decode_mask,
    label_table,
)
from foveal.data.pictures import DamagedPictureError


def test_table_maps_values_ignored_ones_and_wrong_ones():
    table = label_table([7, 8, 11], ignored=[0, 3])
    expected = dict.fromkeys(range(256), -1) | {7: 0, 8: 1, 11: 2, 0: 255, 3: 255, 255: 255}
    assert table.tolist() == list(expected.values())


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_grey_palette_and_16_bit_masks_give_their_values(paint_mask, mode):
    values, stored = decode_mask(paint_mask("a.png", [0, 3, 17, 255], mode))
    assert stored == mode
    assert values.dtype == np.uint8
    assert values.shape == (8, 10)
    assert values[:, 4].tolist() == [0, 3, 17, 255] * 2


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_indices_of_small_palettes_are_kept(tmp_path, bits):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", bits=bits)
    assert decode_mask(tmp_path / "a.png")[0].tolist() == [[0, 1]]


def test_one_bit_is_0_and_1(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "a.png")
    assert decode_mask(tmp_path / "a.png")[0].tolist() == [[0, 1]]


def test_what_is_no_mask(paint, paint_mask, tmp_path):
    with pytest.raises(WrongLabelsError, match=r"a\.png: has colours \(mode RGB\), where a mask"):
        decode_mask(paint("a.png"))
    Image.new("LA", (3, 3)).save(tmp_path / "la.png")
    with pytest.raises(WrongLabelsError, match=r"la\.png: has colours \(mode LA\)"):
        decode_mask(tmp_path / "la.png")
    Image.new("L", (3, 3)).save(tmp_path / "b.jpg")
    with pytest.raises(WrongLabelsError, match=r"b\.jpg: a JPEG, which blurs class numbers"):
        decode_mask(tmp_path / "b.jpg")
    with pytest.raises(WrongLabelsError, match=r"c\.png: has values from 1 to 700, where 0 to 255"):
        decode_mask(paint_mask("c.png", [1, 700], "I;16"))
    (tmp_path / "d.png").touch()
    with pytest.raises(DamagedPictureError, match=r"d\.png: the file is empty"):
        decode_mask(tmp_path / "d.png")


def files(tmp_path, table=None, names=("a.png", "m.png")):
    return MaskFiles(tmp_path, [names], label_table(range(3), [11]) if table is None else table)


def test_pair_is_loaded_with_the_layouts_values_mapped(paint, paint_mask, tmp_path):
    path = paint("a.png")
    mask = paint_mask("m.png", [0, 2, 11, 255], "P")
    pictures = files(tmp_path)
    assert len(pictures) == 1
    image, labels = pictures.load(0)
    with Image.open(path) as stored:
        assert image.tobytes() == stored.tobytes()
    assert labels.dtype == np.uint8
    assert labels[:4, 0].tolist() == [0, 2, 255, 255]
    assert pictures.decode(0)[2:] == ("RGB", "P")
    assert (pictures.name(0), pictures.mask_name(0)) == (str(path), str(mask))
    assert pictures.size(0) == image.size == (10, 8)
    pictures.probe(0)


def test_wrong_values_are_told_with_file_and_value(paint, paint_mask, tmp_path):
    paint("a.png")
    mask = paint_mask("m.png", [0, 3, 7, 9])
    with pytest.raises(WrongLabelsError) as caught:
        files(tmp_path).load(0)
    assert str(caught.value) == (
        f"{mask}: has the values 3, 7, 9 in 60 pixels, where 0 to 2, 11 and 255 are expected"
    )
    paint_mask("m.png", range(20, 28))
    with pytest.raises(WrongLabelsError, match=r"values 20, 21, 22, 23, 24, 25, … in 80 pixels"):
        files(tmp_path).load(0)
    paint_mask("m.png", [1, 5])
    with pytest.raises(WrongLabelsError, match=r"has the value 5 in 40 pixels"):
        files(tmp_path).load(0)


@pytest.mark.parametrize("look", ["load", "probe"])
def test_sizes_that_differ_name_both(paint, paint_mask, tmp_path, look):
    path = paint("a.png")
    mask = paint_mask("m.png", [0], size=(9, 8))
    with pytest.raises(SizesDifferError) as caught:
        getattr(files(tmp_path), look)(0)
    assert str(caught.value) == f"{path}: 10 by 8 pixels, but its mask {mask} has 9 by 8"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (SizesDifferError, str(caught.value))


def test_exif_orientation_is_not_applied(paint_mask, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    paint_mask("m.png", [0])
    image, _ = files(tmp_path).load(0)
    assert (np.asarray(image) == pixels).all()
    paint_mask("m.png", [0], size=(8, 10))
    with pytest.raises(SizesDifferError, match="EXIF orientation is not applied"):
        files(tmp_path).load(0)


def test_damage_on_either_side(paint, paint_mask, tmp_path):
    paint("a.png")
    with pytest.raises(DamagedPictureError, match=r"m\.png: there is no such file"):
        files(tmp_path).probe(0)
    paint_mask("m.png", [0])
    (tmp_path / "a.png").write_bytes(b"")
    for look in ("load", "probe"):
        with pytest.raises(DamagedPictureError, match=r"a\.png: the file is empty"):
            getattr(files(tmp_path), look)(0)


def test_chosen_pairs_are_those_of_the_indices(paint, paint_mask, tmp_path):
    for k in range(4):
        paint(f"{k}.png", k, size=(10 + k, 8))
        paint_mask(f"m{k}.png", [k], size=(10 + k, 8))
    pairs = [(f"{k}.png", f"m{k}.png") for k in range(4)]
    some = ChosenMasks(MaskFiles(tmp_path, pairs, label_table(range(4))), np.array([3, 1]))
    assert len(some) == 2
    for place, k in enumerate((3, 1)):
        image, labels = some.load(place)
        assert np.unique(labels).tolist() == [k]
        assert image.size == some.size(place) == (10 + k, 8)
        assert (some.decode(place)[1] == labels).all()
        assert some.name(place).endswith(f"/{k}.png")
        assert some.mask_name(place).endswith(f"/m{k}.png")
    (tmp_path / "m1.png").write_bytes(b"")
    some.probe(0)
    with pytest.raises(DamagedPictureError, match=r"m1\.png"):
        some.probe(1)


def test_labels_alone_are_what_load_gives(paint, paint_mask, tmp_path):
    paint("images/a.png")
    paint_mask("masks/a.png", [0, 1, 255])
    paint_mask("masks/wrong.png", [0, 7])
    files = [("images/a.png", "masks/a.png"), ("images/a.png", "masks/wrong.png")]
    pictures = ChosenMasks(MaskFiles(tmp_path, files, label_table(range(2))), np.array([1, 0]))
    assert np.array_equal(pictures.labels(1), pictures.load(1)[1])
    with pytest.raises(WrongLabelsError, match=r"wrong\.png: has the value 7"):
        pictures.labels(0)
