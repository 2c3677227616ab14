import pickle

import numpy as np
import pytest
from PIL import Image

from foveal.data.maps import ChosenMaps, MapFiles, read_grey
from foveal.data.masks import SizesDifferError, WrongLabelsError
from foveal.data.pictures import DamagedPictureError


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return str(path)


GREY = np.array([[0, 51, 102], [128, 200, 255]], np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_of_every_kind_is_a_fraction_of_255(tmp_path, mode):
    truth = read_grey(save(tmp_path / "a.png", GREY, mode))
    assert truth.map.dtype == np.float32
    np.testing.assert_array_equal(truth.map, GREY.astype(np.float32) / 255)
    assert truth.kind == mode
    (annotation,) = truth.annotations
    assert annotation.tolist() == [[False, False, False], [True, True, True]]
    assert truth.size == (3, 2)


def test_sixteen_bits_and_fractions(tmp_path):
    deep = np.array([[0, 13107, 65535]], np.uint16)
    np.testing.assert_allclose(
        read_grey(save(tmp_path / "a.png", deep)).map, [[0, 0.2, 1]], atol=1e-7
    )
    floats = np.array([[0, 0.25, 1]], np.float32)
    np.testing.assert_array_equal(read_grey(save(tmp_path / "a.tif", floats)).map, floats)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_zero_and_one_are_black_and_white(tmp_path, mode):
    pixels = np.array([[0, 1, 1, 0]], np.uint8)
    stored = pixels if mode == "L" else pixels > 0
    assert read_grey(save(tmp_path / "a.png", stored)).map.tolist() == [[0, 1, 1, 0]]
    # Two is nobody's "yes": such a map is soft, and nearly black.
    assert read_grey(save(tmp_path / "b.png", pixels * 2)).map.max() == np.float32(2 / 255)


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([255, 255, 255, 0, 0, 0, 51, 51, 51])
    image.save(tmp_path / "a.png")
    np.testing.assert_allclose(read_grey(str(tmp_path / "a.png")).map, [[1, 0, 0.2]], atol=1e-7)


def test_a_jpeg_is_taken_as_it_is(tmp_path):
    truth = read_grey(save(tmp_path / "a.jpg", np.full((8, 8), 100, np.uint8), "RGB"))
    np.testing.assert_allclose(truth.map, 100 / 255, atol=2 / 255)


def test_an_empty_map_is_allowed(tmp_path):
    truth = read_grey(save(tmp_path / "a.png", np.zeros((2, 3), np.uint8)))
    assert not truth.map.any()
    assert not truth.annotations[0].any()


def test_what_is_no_map(tmp_path):
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[0, 0, 0] = 200
    with pytest.raises(WrongLabelsError, match=r"a\.png: has colours \(mode RGB\), where a map is"):
        read_grey(save(tmp_path / "a.png", colours))
    clear = np.dstack([GREY, GREY, GREY, GREY])
    with pytest.raises(WrongLabelsError, match=r"a\.png: has transparent pixels, where a map has"):
        read_grey(save(tmp_path / "a.png", clear))
    floats = np.array([[0, 1.5]], np.float32)
    with pytest.raises(WrongLabelsError, match=r"has values from 0 to 1\.5, where 0 to 1 is exp"):
        read_grey(save(tmp_path / "a.tif", floats))
    (tmp_path / "b.png").write_bytes(b"x")
    with pytest.raises(DamagedPictureError, match=r"b\.png: not a picture"):
        read_grey(str(tmp_path / "b.png"))


@pytest.fixture
def files(tmp_path, paint):
    paint("images/a.jpg", 1, (10, 8))
    paint("images/b.jpg", 2, (10, 8))
    paint("images/c.jpg", 3, (10, 8))
    save(tmp_path / "maps" / "a.png", np.full((8, 10), 255, np.uint8))
    save(tmp_path / "maps" / "b.png", np.full((9, 9), 102, np.uint8))
    save(tmp_path / "maps" / "c.png", np.full((10, 8), 0, np.uint8))
    return MapFiles(tmp_path, [(f"images/{k}.jpg", f"maps/{k}.png") for k in "abc"])


def test_pictures_and_maps_in_files(files, tmp_path):
    assert len(files) == 3
    image, values = files.load(0)
    assert (image.mode, image.size, values.shape) == ("RGB", (10, 8), (8, 10))
    assert values.min() == 1
    assert files.decode(0)[2] == "RGB"
    assert [drawn.all() for drawn in files.annotations(0)] == [True]
    assert files.size(1) == (10, 8)
    assert files.name(1) == f"{tmp_path}/images/b.jpg"
    assert files.map_name(1) == f"{tmp_path}/maps/b.png"
    files.probe(0)
    chosen = ChosenMaps(files, np.array([2, 0]))
    assert len(chosen) == 2
    assert (chosen.name(1), chosen.map_name(0)) == (files.name(0), files.map_name(2))
    assert chosen.load(1)[1].min() == 1
    assert chosen.decode(1)[2] == "RGB"
    assert chosen.size(0) == (10, 8)
    assert chosen.truth(1).size == (10, 8)
    assert len(chosen.annotations(1)) == 1
    chosen.probe(1)
    again = pickle.loads(pickle.dumps(files))  # worker processes get a copy
    assert (again.load(0)[1] == values).all()


def test_a_map_one_pixel_off_has_its_picture_scaled(files):
    files.probe(1)
    image, values = files.load(1)
    assert image.size == (9, 9)
    np.testing.assert_array_equal(values, np.full((9, 9), np.float32(0.4)))


def test_other_sizes_are_an_error_when_probed_and_when_read(files, tmp_path):
    sentence = (
        f"{tmp_path}/images/c.jpg: 10 by 8 pixels, but its map {tmp_path}/maps/c.png has 8 by 10 "
        "(EXIF orientation is not applied to pictures with maps)"
    )
    for look in (files.probe, files.load):
        with pytest.raises(SizesDifferError) as error:
            look(2)
        assert str(error.value) == sentence
    save(tmp_path / "maps" / "c.png", np.zeros((8, 30), np.uint8))
    with pytest.raises(SizesDifferError, match=r"but its map .* has 30 by 8$"):
        files.probe(2)


def test_a_missing_file_is_named(files, tmp_path):
    (tmp_path / "maps" / "a.png").unlink()
    for look in (files.probe, files.load):
        with pytest.raises(DamagedPictureError, match=r"maps/a\.png: there is no such file"):
            look(0)
