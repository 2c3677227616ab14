import numpy as np
import pytest
from PIL import Image

from foveal.data.pictures import DamagedPictureError
from foveal.data.prediction_maps import find_prediction_maps, read_prediction_map

VALUES = np.array([[0, 51, 255], [1, 128, 254]])


def put(path, values=VALUES, **how):
    """Write a map; parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(np.asarray(values).astype(how.pop("dtype", np.uint8))).save(path, **how)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_eight_bits(tmp_path, suffix):
    values = read_prediction_map(put(tmp_path / f"a{suffix}"))
    assert values.dtype == np.uint8
    assert np.array_equal(values, VALUES)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits(tmp_path, suffix):
    values = read_prediction_map(put(tmp_path / f"a{suffix}", VALUES * 257, dtype=np.uint16))
    assert values.dtype == np.uint16
    assert np.array_equal(values, VALUES * 257)


def test_other_pictures_of_one_channel(tmp_path):
    grey = Image.fromarray(VALUES.astype(np.uint8))
    for mode in ("RGB", "RGBA", "LA", "P"):
        grey.convert(mode).save(tmp_path / f"{mode}.png")
        values = read_prediction_map(tmp_path / f"{mode}.png")
        assert values.dtype == np.uint8
        assert np.array_equal(values, VALUES)
    grey.convert("1", dither=Image.Dither.NONE).save(tmp_path / "1.png")
    values = read_prediction_map(tmp_path / "1.png")
    assert values.tolist() == [[False, False, True], [False, True, True]]
    Image.fromarray((VALUES / 255).astype(np.float32)).save(tmp_path / "f.tif")
    np.testing.assert_allclose(read_prediction_map(tmp_path / "f.tif"), VALUES / 255, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, bool])
@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (1, 1, 2, 3)])
def test_arrays(tmp_path, dtype, shape):
    values = VALUES if np.issubdtype(dtype, np.integer) else VALUES / 255
    path = put(tmp_path / "a.npy", values.astype(dtype).reshape(shape))
    found = read_prediction_map(path)
    assert found.dtype == dtype
    assert np.array_equal(found, values.astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_inverted(tmp_path, dtype):
    values = (VALUES / 255).astype(dtype) if dtype in (np.float32, bool) else VALUES.astype(dtype)
    found = read_prediction_map(put(tmp_path / "a.npy", values), inverted=True)
    top = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, top - values.astype(np.float64), atol=1e-6)


def test_maps_that_do_not_open(tmp_path):
    with pytest.raises(DamagedPictureError, match=r"a.png: there is no such file"):
        read_prediction_map(tmp_path / "a.png")
    with pytest.raises(DamagedPictureError, match=r"a.npy: there is no such file"):
        read_prediction_map(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(b"no array")
    with pytest.raises(DamagedPictureError, match=r"b.npy: not a NumPy array, or damaged"):
        read_prediction_map(tmp_path / "b.npy")
    whole = put(tmp_path / "c.npy").read_bytes()
    (tmp_path / "c.npy").write_bytes(whole[:-9])
    with pytest.raises(DamagedPictureError, match=r"c.npy: not a NumPy array, or damaged"):
        read_prediction_map(tmp_path / "c.npy")
    np.savez(tmp_path / "f.npz", np.zeros((4, 5)))
    (tmp_path / "f.npz").rename(tmp_path / "f.npy")
    with pytest.raises(DamagedPictureError, match=r"f.npy: is a .npz file of several arrays"):
        read_prediction_map(tmp_path / "f.npy")
    np.save(tmp_path / "d.npy", np.array([print]), allow_pickle=True)
    with pytest.raises(DamagedPictureError, match=r"d.npy: not a NumPy array, or damaged"):
        read_prediction_map(tmp_path / "d.npy")
    for values in (np.zeros(3), np.zeros((2, 3, 4)), np.zeros((2, 3), int), np.zeros((2, 3), "U1")):
        with pytest.raises(DamagedPictureError, match="but a map is uint8, uint16, bool or float"):
            read_prediction_map(put(tmp_path / "e.npy", values))


def test_pictures_that_are_no_maps(tmp_path):
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[0, 0, 2] = 1
    with pytest.raises(DamagedPictureError, match=r"a.png: has colours \(mode RGB\)"):
        read_prediction_map(put(tmp_path / "a.png", colours))
    clear = np.full((2, 3, 4), 255, np.uint8)
    clear[1, 1, 3] = 254
    with pytest.raises(DamagedPictureError, match="transparent pixels"):
        read_prediction_map(put(tmp_path / "b.png", clear))
    with pytest.raises(DamagedPictureError, match="outside of 0 to 65535"):
        read_prediction_map(put(tmp_path / "c.tif", VALUES - 1, dtype=np.int32))


def test_maps_are_found_by_stem(tmp_path):
    first = put(tmp_path / "2018.png")
    second = put(tmp_path / "deep" / "er" / "3063.npy")
    put(tmp_path / "5096.png")  # of another picture
    (tmp_path / "3063.txt").write_text("notes")
    pictures = ["x/images/test/3063.jpg", "x/images/test/2018.jpg"]
    assert find_prediction_maps(tmp_path, pictures) == [second, first]


def test_equal_names_are_told_apart_by_folders(tmp_path):
    maps = [put(tmp_path / city / "edges" / "0001.png") for city in ("bern", "ulm")]
    nearer = [put(tmp_path / city / "0002.png") for city in ("bern", "ulm")]
    with pytest.raises(ValueError, match=r"there are several maps of it, .*bern.* and .*ulm"):
        find_prediction_maps(tmp_path, ["images/bern/0001.jpg"])
    assert find_prediction_maps(tmp_path, ["i/ulm/0002.jpg", "i/bern/0002.jpg"]) == nearer[::-1]
    assert find_prediction_maps(tmp_path, ["bern/edges/0001.jpg"]) == maps[:1]


def test_what_is_missing_is_named(tmp_path):
    put(tmp_path / "2018.png")
    with pytest.raises(ValueError, match=r"no map of i/3063.jpg; 3063.png or .npy is expected"):
        find_prediction_maps(tmp_path, ["i/2018.jpg", "i/3063.jpg"])
    with pytest.raises(ValueError, match=r"two pictures have this name, a/2018.jpg and b/2018.jpg"):
        find_prediction_maps(tmp_path, ["a/2018.jpg", "b/2018.jpg"])
    with pytest.raises(ValueError, match="there is no such folder"):
        find_prediction_maps(tmp_path / "nowhere", [])
