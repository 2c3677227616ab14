import numpy as np
import pytest
from scipy.io import loadmat, savemat

from foveal.data import bsds500, read_dense
from foveal.data.layouts import detect
from foveal.data.masks import SizesDifferError, WrongLabelsError
from foveal.data.pictures import DamagedPictureError


def drawn(*rows, shape=(8, 10)):
    """Return boundaries along rows."""
    pixels = np.zeros(shape, np.uint8)
    pixels[list(rows)] = 1
    return pixels


@pytest.fixture
def tiny(paint, write_edges):
    def make(data="BSDS500/data"):
        for k, split in enumerate(("train", "val", "test")):
            for stem in (f"{k}1", f"{k}2"):
                paint(f"{data}/images/{split}/{stem}.jpg", int(stem))
                write_edges(f"{data}/groundTruth/{split}/{stem}.mat", drawn(1), drawn(1, 3))

    return make


@pytest.mark.parametrize("data", ["BSDS500/data", "data", "."])
def test_the_folder_or_those_above_it(tiny, tmp_path, data):
    tiny(data)
    (tmp_path / data / "images" / "train" / "Thumbs.db").touch()
    assert detect(tmp_path) == "bsds500"
    read = read_dense(tmp_path)
    assert (read.layout, read.task) == ("bsds500", "edge")
    assert {split: len(pictures) for split, pictures in read.splits.items()} == {
        "train": 2,
        "val": 2,
        "test": 2,
    }
    assert read.origins["val"] == "folders images/val/ and groundTruth/val/"
    test = read.splits["test"]
    assert test.name(0).endswith("images/test/21.jpg")
    assert test.map_name(0).endswith("groundTruth/test/21.mat")


def test_a_label_is_the_share_of_annotators(write_edges):
    path = write_edges("a.mat", drawn(1), drawn(1, 3), drawn(), drawn(1, 3, 5))
    truth = bsds500.read_truth(str(path))
    assert truth.map.dtype == np.float32
    assert truth.map[:, 4].tolist() == [0, 0.75, 0, 0.5, 0, 0.25, 0, 0]
    # The third marked nothing, and is counted.
    assert [int(one.sum()) for one in truth.annotations] == [10, 20, 0, 30]
    assert truth.kind == "4 annotators"


def test_one_annotator_or_a_structure_instead_of_cells(write_edges, tmp_path):
    truth = bsds500.read_truth(str(write_edges("a.mat", drawn(2))))
    assert truth.kind == "1 annotator"
    assert truth.map[:, 0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    structure = np.zeros((1, 2), [("Boundaries", object)])
    structure["Boundaries"][0, 0], structure["Boundaries"][0, 1] = drawn(2), drawn(2, 3)
    savemat(tmp_path / "b.mat", {"groundTruth": structure})
    assert bsds500.read_truth(str(tmp_path / "b.mat")).map[:4, 0].tolist() == [0, 0, 1, 0.5]


def test_files_that_are_no_boundaries(write_edges, write_skeleton, tmp_path):
    def sentence(path):
        with pytest.raises(DamagedPictureError) as error:
            bsds500.read_truth(str(path))
        assert str(error.value).startswith(f"{path}: ")
        return type(error.value), str(error.value).removeprefix(f"{path}: ")

    (tmp_path / "a.mat").write_bytes(b"no such thing" * 20)
    kind, text = sentence(tmp_path / "a.mat")
    assert kind is DamagedPictureError
    assert text.startswith("will not read as a MATLAB file")
    assert sentence(tmp_path / "absent.mat")[1] == "there is no such file"
    whole = write_edges("b.mat", drawn(1)).read_bytes()
    (tmp_path / "b.mat").write_bytes(whole[: len(whole) // 2])
    assert sentence(tmp_path / "b.mat")[1].startswith("will not read as a MATLAB file")
    assert sentence(write_skeleton("c.mat", drawn(1)))[1] == "no variable 'groundTruth' in it"
    assert sentence(write_edges("d.mat", 3 * drawn(1))) == (
        WrongLabelsError,
        "'Boundaries' must be a matrix of 0 and 1, not 3",
    )
    assert sentence(write_edges("e.mat", drawn(1), drawn(1, shape=(8, 9))))[1] == (
        "the 'Boundaries' of its annotators have different sizes"
    )
    savemat(tmp_path / "f.mat", {"groundTruth": np.empty((1, 0), object)})
    assert sentence(tmp_path / "f.mat")[1] == "'groundTruth' has no annotators"
    savemat(tmp_path / "g.mat", {"groundTruth": drawn(1)})
    assert sentence(tmp_path / "g.mat")[1] == "an annotator of 'groundTruth' has no 'Boundaries'"


def test_partners_and_sizes(tiny, paint, write_edges, tmp_path):
    tiny()
    root = tmp_path / "BSDS500"
    write_edges("BSDS500/data/groundTruth/val/11.mat", drawn(1, shape=(12, 10)))
    with pytest.raises(SizesDifferError, match=r"11\.jpg: 10 by 8 pixels, but its map .* 10 by 12"):
        read_dense(root).splits["val"].probe(0)
    paint("BSDS500/data/images/train/99.jpg")
    with pytest.raises(ValueError, match=r"train/99\.jpg: there is no truth 99 in .*groundTruth/t"):
        read_dense(root)


def test_real_bsds500(pack):
    root = pack("BSDS500")
    data = read_dense(root)
    assert {split: len(p) for split, p in data.splits.items()} == {
        "train": 200,
        "val": 100,
        "test": 60,
    }
    part = data.splits["val"]
    first, shares = [], []
    for index in range(len(part)):
        truth = part.truth(index)
        first.append(truth.annotations[0].mean())
        shares.append(len(truth.annotations))
    # The pack's description counts the first annotator of each picture.
    assert np.mean(first) == pytest.approx(0.0162, abs=5e-5)
    assert {n: shares.count(n) for n in set(shares)} == {5: 69, 6: 18, 7: 11, 8: 2}
    image, values = part.load(3)
    cells = loadmat(part.map_name(3))["groundTruth"]
    votes = sum(cells[0, k]["Boundaries"][0, 0].astype(np.float64) for k in range(cells.shape[1]))
    np.testing.assert_allclose(values, votes / cells.shape[1], atol=1e-7)
    assert image.size == values.shape[::-1]
