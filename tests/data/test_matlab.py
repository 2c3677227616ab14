import numpy as np
import pytest
from scipy.io import savemat

from foveal.data import matlab


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float64"])
@pytest.mark.parametrize("form", ["4", "5"])
def test_rows_and_columns_of_any_type_are_whole_numbers(tmp_path, shape, dtype, form):
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.array([3, 1, 255], dtype=dtype).reshape(shape), "y": 1.0}, format=form)
    (values,) = matlab.read_mat(path, "x")
    numbers = matlab.whole_numbers(path, "x", values, 255)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [3, 1, 255]


def test_a_single_number_is_a_row_of_one(tmp_path):
    assert matlab.whole_numbers(tmp_path / "a.mat", "x", np.uint8(7), 7).tolist() == [7]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 0], "must be whole numbers from 1 to 9, not 0"),
        ([1, 10], "must be whole numbers from 1 to 9, not 10"),
        ([-3], "must be whole numbers from 1 to 9, not -3"),
        ([1.5], r"must be whole numbers from 1 to 9, not 1\.5"),
        ([np.nan, 1], "must be whole numbers from 1 to 9, not nan"),
        ([np.inf], "must be whole numbers from 1 to 9, not inf"),
        ([[1, 2], [3, 4]], "must be a row of numbers"),
        ([[1, 2], [3]], "must be a row of numbers"),
        (["a"], "must be a row of numbers"),
        ([], "must be a row of numbers"),
    ],
)
def test_other_values_are_named(tmp_path, values, message):
    with pytest.raises(ValueError, match=rf"a\.mat: 'x' {message}$"):
        matlab.whole_numbers(tmp_path / "a.mat", "x", values, 9)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_anywhere_is_named_in_one_sentence(tmp_path, compressed):
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.arange(1000)}, do_compression=compressed)
    whole = path.read_bytes()
    for keep in range(0, len(whole) - 8, len(whole) // 97):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"a\.mat: (will not read|no variable)") as error:
            matlab.read_mat(path, "x")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 20, b"MATLAB 7.3"])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mat: will not read as a MATLAB file \("):
        matlab.read_mat(path, "x")


def test_damaged_compressed_data_are_noticed(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.arange(1000)}, do_compression=True)
    whole = bytearray(path.read_bytes())
    for at in range(140, len(whole), len(whole) // 31):
        damaged = whole.copy()
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.mat: will not read as a MATLAB file \("):
            matlab.read_mat(path, "x")


def test_a_missing_file_and_a_missing_variable(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(ValueError, match=r"a\.mat: there is no such file$"):
        matlab.read_mat(path, "x")
    savemat(path, {"x": 1, "y": 2})
    with pytest.raises(ValueError, match=r"a\.mat: no variable 'z' in it"):
        matlab.read_mat(path, "x", "z")
