import hashlib
import shutil

import numpy as np
import pytest

from foveal.data import fashion


def test_counts_are_those_of_the_subset():
    found = fashion.read()
    assert found.image_size == 28
    assert found.classes[0] == "T-shirt/top"
    assert found.classes[9] == "Ankle boot"
    assert np.bincount(found.parts["train"].targets).tolist() == [600] * 10
    # per class of the 2,000 test pictures, from the subset's own description
    expected = [187, 217, 184, 193, 214, 192, 187, 213, 202, 211]
    assert np.bincount(found.parts["test"].targets).tolist() == expected


def test_pixels_are_those_of_the_original(pack):
    raw = pack("FashionMNIST") / "FashionMNIST" / "raw"
    found = fashion.read()
    for split, prefix in (("train", "train"), ("test", "t10k")):
        original = (raw / f"{prefix}-images-idx3-ubyte").read_bytes()[16:]
        pixels = b"".join(
            np.asarray(found.parts[split].load(k))[..., 0].tobytes()
            for k in range(len(found.parts[split]))
        )
        assert hashlib.sha256(pixels).digest() == hashlib.sha256(original).digest()


def test_licence_lies_beside_the_files():
    text = (fashion.FOLDER / "LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "MIT" in text


def test_missing_damaged_and_shortened_files_are_named(tmp_path):
    folder = tmp_path / "fashion"
    shutil.copytree(fashion.FOLDER, folder)
    images = folder / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: damaged gzip file"):
        fashion.read(folder)
    images.unlink()
    with pytest.raises(ValueError, match="train-images-idx3-ubyte: there is no such file"):
        fashion.read(folder)
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(folder / f"t10k-{kind}-ubyte.gz", folder / f"train-{kind}-ubyte.gz")
    with pytest.raises(ValueError, match=r"train part must have 6000 pictures .* not 2000"):
        fashion.read(folder)
