import gzip

import numpy as np
import pytest

from foveal.data import idx


def idx_bytes(array: np.ndarray) -> bytes:
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, array.ndim)) + shape + array.astype(np.uint8).tobytes()


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a miniature MNIST: 6 training, 4 test pictures of 3 x 3."""

    def save(folder=".", suffix="", separator="-"):
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        for prefix, count in (("train", 6), ("t10k", 4)):
            pixels = np.arange(count * 9).reshape(count, 3, 3)
            for kind, array in (("images", pixels), ("labels", np.arange(count) % 3)):
                data = idx_bytes(array)
                name = f"{prefix}-{kind}{separator}idx{array.ndim}-ubyte{suffix}"
                (target / name).write_bytes(gzip.compress(data) if suffix else data)
        return target

    return save


@pytest.mark.parametrize("folder", [".", "raw", "MNIST", "MNIST/raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_every_place_and_packing(write, tmp_path, folder, suffix):
    write(folder, suffix)
    assert idx.detect(tmp_path)
    found = idx.read(tmp_path)
    assert found.image_size == 3
    assert found.parts["train"].targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.parts["test"].targets.dtype == np.int64
    assert np.asarray(found.parts["test"].load(1))[..., 0].ravel().tolist() == list(range(9, 18))
    fashion = "Fashion" in folder
    assert found.classes[:2] == (("T-shirt/top", "Trouser") if fashion else ("0", "1"))
    assert len(found.classes) == (10 if fashion else 3)


def test_reads_names_with_a_dot(write, tmp_path):
    write(separator=".")
    assert len(idx.read(tmp_path).parts["train"]) == 6


def test_two_sets_are_named(write, tmp_path):
    write("MNIST/raw")
    write("KMNIST/raw")
    with pytest.raises(ValueError, match=r"several idx sets: choose .*KMNIST/raw and .*MNIST/raw"):
        idx.read(tmp_path)


def test_no_files(tmp_path):
    assert not idx.detect(tmp_path)
    with pytest.raises(ValueError, match="no idx files such as train-images-idx3-ubyte"):
        idx.read(tmp_path)


def test_missing_file_is_named(write, tmp_path):
    (write() / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte: there is no such file"):
        idx.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"\x00\x00\x08\x01" + data[4:], "not an idx file of images"),
        (lambda data: data[:10], "not an idx file of images"),
        (lambda data: data[:-1], "promises 54 bytes of data, it holds 53"),
        (lambda data: data + b"x", "promises 54 bytes of data, it holds more than 54"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "truncated or damaged"),
        (lambda data: b"", "not an idx file of images"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_pictures_are_named(write, tmp_path, change, message, packed):
    suffix = ".gz" if packed else ""
    path = write(suffix=suffix) / f"train-images-idx3-ubyte{suffix}"
    data = path.read_bytes()
    data = change(gzip.decompress(data) if packed else data)
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte(\.gz)?: .*{message}"):
        idx.read(tmp_path)


@pytest.mark.parametrize("keep", [20, -4])
def test_damaged_gzip_is_named(write, tmp_path, keep):
    path = write(suffix=".gz") / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: damaged gzip file"):
        idx.read(tmp_path)


def test_gz_that_is_not_gzip_is_named(write, tmp_path):
    path = write(suffix=".gz") / "train-labels-idx1-ubyte.gz"
    path.write_bytes(b"plain")
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz: damaged gzip file"):
        idx.read(tmp_path)


def test_counts_must_agree(write, tmp_path):
    (write() / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(5)))
    with pytest.raises(ValueError, match="6 pictures, but 5 labels in train-labels-idx1-ubyte"):
        idx.read(tmp_path)


def test_a_label_beyond_the_class_names(write, tmp_path):
    folder = write("FashionMNIST/raw")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(6) + 9))
    with pytest.raises(ValueError, match="label 14, but 10 classes"):
        idx.read(tmp_path)
