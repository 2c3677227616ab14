import numpy as np
import pytest

from foveal.data import read_dense, sk_large
from foveal.data.layouts import detect
from foveal.data.masks import WrongLabelsError

LINE = np.zeros((8, 10), np.uint8)
LINE[4, 2:8] = 1


@pytest.mark.parametrize("name", ["SK-LARGE", "SK506", "anything"])
def test_images_beside_truth(paint, write_skeleton, tmp_path, name):
    for k, split in enumerate(("train", "test")):
        for stem in range(4):
            paint(f"{name}/images/{split}/{k}{stem}.jpg", stem)
            write_skeleton(f"{name}/groundTruth/{split}/{k}{stem}.mat", LINE)
    (tmp_path / name / "aug_data").mkdir()
    assert detect(tmp_path / name) == detect(tmp_path) == "sk_large"
    data = read_dense(tmp_path / name, val_fraction=0.25)
    assert (data.layout, data.task) == ("sk_large", "skeleton")
    assert {split: len(p) for split, p in data.splits.items()} == {"train": 3, "val": 1, "test": 4}
    image, values = data.splits["test"].load(0)
    assert image.size == (10, 8)
    assert (values == LINE).all()
    assert [(one == LINE).all() for one in data.splits["test"].annotations(0)] == [True]
    assert sk_large.read(tmp_path / name).ignored == (f"{tmp_path / name}/aug_data/",)


@pytest.mark.parametrize("kind", [bool, np.float64, np.uint8])
def test_numbers_of_any_kind(write_skeleton, kind):
    path = write_skeleton("a.mat", LINE.astype(kind))
    truth = sk_large.read_truth(str(path))
    assert (truth.map == LINE).all()
    assert truth.map.dtype == np.float32
    assert (sk_large.read_truth(str(write_skeleton("b.mat", LINE * 255))).map == LINE).all()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (LINE * 0.5, r"'symmetry' must be a matrix of 0 and 1, not 0\.5"),
        (-LINE.astype(float), "'symmetry' must be a matrix of 0 and 1, not -1"),
        (np.where(LINE > 0, np.nan, 0), "'symmetry' must be a matrix of 0 and 1, not nan"),
        (np.zeros((8, 10, 3)), "'symmetry' must be a matrix of 0 and 1$"),
        (np.array(["text"]), "'symmetry' must be a matrix of 0 and 1$"),
    ],
)
def test_values_that_are_no_skeleton(write_skeleton, values, sentence):
    path = write_skeleton("a.mat", LINE, symmetry=values)
    with pytest.raises(WrongLabelsError, match=sentence):
        sk_large.read_truth(str(path))


def test_other_tasks_are_refused(paint, write_skeleton, tmp_path):
    paint("images/train/a.jpg")
    write_skeleton("groundTruth/train/a.mat", LINE)
    with pytest.raises(ValueError, match="the SK-LARGE layout has no edge maps, it is for skele"):
        read_dense(tmp_path, task="edge")


def test_real_stand_in(pack):
    data = read_dense(pack("skeleton-standin"))
    assert {split: len(p) for split, p in data.splits.items()} == {
        "train": 104,
        "val": 12,
        "test": 46,
    }
    test = data.splits["test"]
    shares = [test.load(index)[1].mean() for index in range(len(test))]
    assert np.mean(shares) == pytest.approx(0.00574, abs=5e-6)  # of the pack's description
