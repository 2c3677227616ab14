import pickle
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from foveal.data.pictures import (
    DamagedPictureError,
    decode,
    list_pictures,
    open_picture,
    probe,
    walk,
)


def test_rgb_pixels_come_back_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = open_picture(tmp_path / "a.png")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_grey_16_bit_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)  # 257 = 65535 / 255
    Image.fromarray(values).save(tmp_path / "a.png")
    image, mode = decode(tmp_path / "a.png")
    assert mode == "I;16"
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_big_endian_16_bit_tiff_is_scaled(tmp_path):
    values = np.array([[0, 32896, 65535]], dtype=">u2")
    header = b"MM\x00*" + struct.pack(">I", 8)
    tags = [(256, 3, 3), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    entries = [struct.pack(">HHIHxx", tag, kind, 1, value) for tag, kind, value in tags]
    end = 8 + 2 + 12 * 8 + 4
    entries += [struct.pack(">HHII", 273, 4, 1, end), struct.pack(">HHII", 279, 4, 1, 6)]
    entries.sort(key=lambda entry: entry[:2])
    directory = struct.pack(">H", 8) + b"".join(entries) + struct.pack(">I", 0)
    (tmp_path / "a.tif").write_bytes(header + directory + values.tobytes())
    image = open_picture(tmp_path / "a.tif")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 128, 255]


def test_fractions_are_scaled_and_other_floats_refused(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert np.asarray(open_picture(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0.0, 300.0]], dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DamagedPictureError, match=r"b\.tif: .*0\.0 to 300\.0 where 0 to 1"):
        open_picture(tmp_path / "b.tif")


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    # 51/255 = 0.2 of black over white is 204
    expected = [[200, 0, 0], [255, 255, 255], [204, 204, 204]]
    assert np.asarray(open_picture(tmp_path / "a.png"))[0].tolist() == expected


def test_grey_with_alpha_is_laid_on_white(tmp_path):
    grey = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    Image.fromarray(grey, "LA").save(tmp_path / "a.png")
    image, mode = decode(tmp_path / "a.png")
    assert mode == "LA"
    assert np.asarray(image)[0].tolist() == [[10, 10, 10], [255, 255, 255]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency_is_laid_on_white(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=transparency)
    image, mode = decode(tmp_path / "a.png")
    assert mode == "P"
    assert np.asarray(image)[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_palette_without_transparency_gives_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert np.asarray(open_picture(tmp_path / "a.png"))[0].tolist() == [[10, 20, 30], [40, 50, 60]]


def test_one_bit_picture_is_black_and_white(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "a.png")
    assert np.asarray(open_picture(tmp_path / "a.png"))[0].tolist() == [[0] * 3, [255] * 3]


def test_cmyk_jpeg_keeps_its_colour(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    image, mode = decode(tmp_path / "a.jpg")
    assert mode == "CMYK"
    red, green, blue = np.asarray(image)[8, 8].tolist()
    assert red > 245
    assert max(green, blue) < 10


def test_first_frame_of_an_animation(tmp_path):
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    for name in ("a.gif", "a.png"):
        red.save(tmp_path / name, save_all=True, append_images=[blue], duration=100)
        image, mode = decode(tmp_path / name)
        assert mode.endswith(", animated")
        assert np.asarray(image)[0, 0].tolist() == [255, 0, 0]


# Where the stored top-left corner pixel is shown, (column, row) in the upright picture of a
# stored 3 x 2 one; EXIF 2.32: 6 is "row 0 is the right side, column 0 the top".
@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [
        (1, (3, 2), (0, 0)),
        (2, (3, 2), (2, 0)),
        (3, (3, 2), (2, 1)),
        (4, (3, 2), (0, 1)),
        (5, (2, 3), (0, 0)),
        (6, (2, 3), (1, 0)),
        (7, (2, 3), (1, 2)),
        (8, (2, 3), (0, 2)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, size, corner):
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    upright = open_picture(tmp_path / "a.png")
    assert upright.size == size
    assert upright.getpixel(corner) == (255, 255, 255)
    assert np.asarray(upright).sum() == 3 * 255


def test_broken_exif_does_not_spoil_the_picture(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png", exif=b"Exif\x00\x00nonsense")
    assert open_picture(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


def test_png_called_jpeg_and_odd_names_open(paint):
    for name in ("a.JPEG", "with blank.PNG", "größe 日本.png"):
        assert open_picture(paint(name, format="PNG")).size == (10, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_truncated_picture_is_named(paint, suffix):
    path = paint(f"cut.{suffix}", size=(64, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedPictureError, match=rf"cut\.{suffix}: will not decode \(.+\)$") as e:
        open_picture(path)
    assert e.value.path == str(path)
    assert str(e.value) == f"{path}: {e.value.reason}"


def test_empty_text_missing_and_folder_are_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "not a picture"),
        ("folder.jpg", "no such file"),
        ("missing.jpg", "no such file"),
    ):
        with pytest.raises(DamagedPictureError, match=rf"{name}: .*{reason}"):
            open_picture(tmp_path / name)


def test_postscript_is_not_interpreted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(DamagedPictureError, match="not a picture"):
        open_picture(tmp_path / "a.png")


def _png_of_size(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds one line."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(width + 1))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 50_000])  # Pillow warns of the first, raises at the other
@pytest.mark.parametrize("action", ["error", "always"])
def test_decompression_bomb_is_refused_without_a_warning(tmp_path, side, action):
    (tmp_path / "bomb.png").write_bytes(_png_of_size(side, side))
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter(action)
        with pytest.raises(DamagedPictureError, match=r"bomb\.png: .*decompression bomb"):
            open_picture(tmp_path / "bomb.png")
    assert not escaped


def test_threads_read_the_same_pixels(paint):
    paths = [paint(f"{k}.png", k) for k in range(8)]
    expected = [np.asarray(Image.open(path)).copy() for path in paths]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            for k, path in enumerate(paths):
                if not np.array_equal(np.asarray(open_picture(path)), expected[k]):
                    wrong.append(k)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_file_stays_open(paint):
    good, cut = paint("a.tif"), paint("cut.png", size=(64, 64))
    cut.write_bytes(cut.read_bytes()[:500])
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        for _ in range(3):
            open_picture(good)
            with pytest.raises(DamagedPictureError):
                open_picture(cut)
    assert not [w for w in escaped if issubclass(w.category, ResourceWarning)]


def test_error_survives_the_way_home_from_a_worker():
    error = pickle.loads(pickle.dumps(DamagedPictureError("a/b.png", "the file is empty")))
    assert (error.path, error.reason) == ("a/b.png", "the file is empty")
    assert str(error) == "a/b.png: the file is empty"


def test_listing_is_sorted_and_leaves_litter_out(paint, tmp_path):
    for name in ("b.PNG", "a b.png", "sub/c.png", "ä.png"):
        paint(name)
    for name in ("Thumbs.db", ".DS_Store", "._b.PNG", ".hidden/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert list_pictures(tmp_path) == [tmp_path / name for name in ("a b.png", "b.PNG", "ä.png")]
    names = [str(path.relative_to(tmp_path)) for path in walk(tmp_path)]
    assert names == ["a b.png", "b.PNG", "notes.txt", "sub/c.png", "ä.png"]


def test_walk_does_not_follow_a_link_back_up(paint, tmp_path):
    paint("sub/a.png")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert [path.name for path in walk(tmp_path)] == ["a.png"]


def test_walk_follows_a_link_to_a_folder_elsewhere(paint, tmp_path):
    paint("elsewhere/a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(walk(tmp_path / "data")) == [tmp_path / "data" / "link" / "a.png"]


def test_a_probe_finds_what_the_header_shows_and_leaves_pixels_alone(paint, tmp_path):
    path = paint("sound.png")
    probe(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    probe(path)  # the header is whole
    path.write_bytes(b"")
    with pytest.raises(DamagedPictureError, match="the file is empty"):
        probe(path)
    path.write_bytes(b"<html>")
    with pytest.raises(DamagedPictureError, match="not a picture"):
        probe(path)
    with pytest.raises(DamagedPictureError, match="there is no such file"):
        probe(tmp_path / "missing.png")
