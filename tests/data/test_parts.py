import pickle

import numpy as np
import pytest
from PIL import Image

from foveal.data.parts import ChosenPictures, PictureArray, PictureFiles, with_targets


def test_files_load_by_index_and_have_paths_as_names(paint, tmp_path):
    paint("x y/é.png", 3)
    pictures = PictureFiles(tmp_path, ["x y/é.png"], np.array([1]))
    assert len(pictures) == 1
    assert pictures.name(0) == str(tmp_path / "x y" / "é.png")
    assert pictures.decode(0)[1] == "RGB"
    expected = np.random.default_rng(3).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(pictures.load(0)), expected)


def test_absolute_paths_stay_as_they_are(paint, tmp_path):
    path = paint("a.png")
    assert PictureFiles(tmp_path / "other", [str(path)], np.array([0])).name(0) == str(path)


def test_array_gives_rgb_and_rows_of_files():
    pixels = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    pictures = PictureArray(pixels, np.arange(5), [("one", 2), ("two", 3)])
    assert [pictures.name(k) for k in range(5)] == [
        "one[0]",
        "one[1]",
        "two[0]",
        "two[1]",
        "two[2]",
    ]
    image = pictures.load(1)
    assert (image.mode, image.size) == ("RGB", (3, 2))
    np.testing.assert_array_equal(np.asarray(image)[..., 2], pixels[1])
    assert pictures.decode(0)[1] == "L"
    with pytest.raises(IndexError):
        pictures.name(5)


def test_chosen_pictures_share_the_array():
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1)
    all_pictures = PictureArray(pixels, np.array([5, 6, 7, 8]), [("f", 4)])
    chosen = ChosenPictures(all_pictures, np.array([3, 1]))
    assert chosen.targets.tolist() == [8, 6]
    assert [chosen.name(k) for k in range(len(chosen))] == ["f[3]", "f[1]"]
    assert isinstance(chosen.load(0), Image.Image)
    assert chosen.load(0).getpixel((0, 0)) == (3, 3, 3)
    assert chosen.pictures is all_pictures


def test_a_hundred_thousand_files_pickle_to_few_megabytes(tmp_path):
    paths = [f"train/n{k % 1000:08}/n{k % 1000:08}_{k:06}.JPEG" for k in range(100_000)]
    pictures = PictureFiles(tmp_path, paths, np.zeros(100_000, dtype=np.int64))
    assert len(pickle.dumps(pictures)) < 6_000_000
    assert pickle.loads(pickle.dumps(pictures)).name(99_999).endswith(paths[-1])


def test_other_labels_for_the_same_pictures():
    pixels = np.arange(3, dtype=np.uint8).reshape(3, 1, 1)
    pictures = PictureArray(pixels, np.array([0, 1, 2]), [("file", 3)])
    other = with_targets(pictures, np.array([2, 2, 0]))
    assert (len(other), other.targets.tolist()) == (3, [2, 2, 0])
    assert [other.name(k) for k in range(3)] == [pictures.name(k) for k in range(3)]
    assert np.asarray(other.load(1))[0, 0].tolist() == [1, 1, 1]
    assert pictures.targets.tolist() == [0, 1, 2]
