import sys

import numpy as np
import pytest

from foveal.data import usps


@pytest.fixture
def write(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the extra data")

    def save(name="usps.h5", **changes):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        data = np.zeros((3, 256), dtype=np.float32)
        data[1, 0], data[2, 17] = 1.0, 0.5
        contents = {"data": data, "target": np.array([4, 9, 0], dtype=np.int32)} | changes
        with h5py.File(path, "w") as file:
            for split in ("train", "test"):
                for key, values in contents.items():
                    file.create_dataset(f"{split}/{key}", data=values)
        return path

    return save


@pytest.mark.parametrize("name", ["usps.h5", "USPS/usps.h5"])
def test_values_become_8_bits(write, tmp_path, name):
    path = write(name)
    for root in (tmp_path, path):
        assert usps.detect(root)
        found = usps.read(root)
        assert found.image_size == 16
        assert found.classes == tuple("0123456789")
        assert found.parts["train"].targets.tolist() == [4, 9, 0]
        assert found.parts["train"].load(1).getpixel((0, 0)) == (255, 255, 255)
        assert found.parts["train"].load(2).getpixel((1, 1)) == (128, 128, 128)  # 17 = row 1, 1
        assert found.parts["test"].name(2) == f"{path}[test][2]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((3, 100))}, r"data must be \[N, 256\] and target \[N\]"),
        ({"target": np.zeros(2)}, r"data must be \[N, 256\] and target \[N\]"),
        ({"data": np.full((3, 256), 7.0)}, r"values must lie in \[0, 1\], not 7.0 to 7.0"),
        ({"target": np.array([1, 2, 10])}, "labels must be 0 to 9, not 1 to 10"),
    ],
)
def test_other_contents_are_named(write, changes, message):
    with pytest.raises(ValueError, match=rf"usps\.h5\[train\]: {message}"):
        usps.read(write(**changes))


def test_other_groups_and_damaged_files_are_named(write):
    import h5py

    path = write()
    with h5py.File(path, "w") as file:
        file.create_group("other")
    with pytest.raises(ValueError, match=r"usps\.h5: not the HDF5 file of USPS"):
        usps.read(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"usps\.h5: not the HDF5 file of USPS"):
        usps.read(path)


def test_missing_h5py_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "usps.h5").write_bytes(b"x")
    with pytest.raises(ImportError, match=r"pip install foveal\[data\]"):
        usps.read(tmp_path)


def test_no_file(tmp_path):
    assert not usps.detect(tmp_path)
    with pytest.raises(ValueError, match=r"no usps\.h5 in it"):
        usps.read(tmp_path)
