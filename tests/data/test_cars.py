import shutil

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import StanfordCars

from foveal.data import cars, read_classification
from foveal.data.check import check_classification

CLASSES = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012")
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def save_annotations(path, names, classes=None):
    """Write a struct array 1 x N as MATLAB does: every field a matrix of its own."""
    fields = [*BOX, *(["class"] if classes is not None else []), "fname"]
    rows = np.zeros((1, len(names)), dtype=[(field, object) for field in fields])
    for k, name in enumerate(names):
        for field in BOX:
            rows[0, k][field] = np.array([[k + 1]], dtype=np.uint16)
        if classes is not None:
            rows[0, k]["class"] = np.array([[classes[k]]], dtype=np.uint8)
        rows[0, k]["fname"] = np.array([name])
    savemat(path, {"annotations": rows}, do_compression=True)


def save_meta(path, classes=CLASSES):
    cells = np.empty((1, len(classes)), dtype=object)
    cells[0] = list(classes)
    savemat(path, {"class_names": cells})


@pytest.fixture
def write(tmp_path, paint):
    """Return a function that writes a miniature of nine training and six test pictures."""

    def save(beside: bool = False):
        folder = tmp_path / "stanford_cars"
        (folder / "devkit").mkdir(parents=True)
        for split, count in (("train", 9), ("test", 6)):
            for k in range(count):
                paint(f"stanford_cars/cars_{split}/{k + 1:05}.jpg", k + 100 * count)
        save_meta(folder / "devkit" / "cars_meta.mat")
        for count, name in (
            (9, "devkit/cars_train_annos.mat"),
            (6, f"{'' if beside else 'devkit/'}cars_test_annos_withlabels.mat"),
        ):
            names = [f"{k + 1:05}.jpg" for k in range(count)]
            save_annotations(folder / name, names, [3 - k % 3 for k in range(count)])
        save_annotations(folder / "devkit" / "cars_test_annos.mat", names)
        return folder

    return save


@pytest.mark.parametrize("beside", [False, True])
def test_classes_come_from_the_matlab_files(write, tmp_path, beside):
    folder = write(beside)
    for root in (tmp_path, folder):
        assert cars.detect(root)
        found = cars.read(root)
        assert found.classes == CLASSES
        assert found.parts["train"].targets.tolist() == [2, 1, 0] * 3
        assert found.parts["test"].targets.tolist() == [2, 1, 0] * 2
        assert found.parts["test"].name(5) == str(folder / "cars_test" / "00006.jpg")
        assert found.origins["test"] == "file cars_test_annos_withlabels.mat"
        assert not found.notes
        assert not found.ignored


def test_torchvision_reads_the_same(write, tmp_path):
    write(beside=True)
    found = cars.read(tmp_path)
    for split in ("train", "test"):
        theirs, ours = StanfordCars(tmp_path, split), found.parts[split]
        assert found.classes == tuple(theirs.classes)
        assert len(ours) == len(theirs)
        for k, (image, target) in enumerate(theirs):
            assert ours.targets[k] == target
            assert ours.load(k).tobytes() == image.tobytes()


def test_auto_finds_it_and_draws_validation_from_training(write, tmp_path):
    folder = write()
    for root in (tmp_path, folder):
        data = read_classification(root)
        assert data.layout == "cars"
        assert {s: len(p) for s, p in data.splits.items()} == {"train": 6, "val": 3, "test": 6}
    report = check_classification(tmp_path)
    assert report.problems == report.ignored == ()


def test_without_test_labels_training_is_all_and_it_is_said(write, tmp_path):
    folder = write()
    path = folder / "devkit" / "cars_test_annos_withlabels.mat"
    path.unlink()
    data = read_classification(tmp_path)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert data.notes == (f"{path}: there is no such file, so no test pictures are read",)
    assert cars.read(tmp_path).ignored == tuple(
        str(folder / "cars_test" / f"{k:05}.jpg") for k in range(1, 7)
    )


def test_one_picture_and_numbers_stored_as_floats(write, tmp_path):
    folder = write()
    row = np.zeros((1, 1), dtype=[("class", object), ("fname", object)])
    row[0, 0] = (2.0, "00001.jpg")
    savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": row})
    found = cars.read(tmp_path)
    assert found.parts["train"].targets.tolist() == [1]
    assert len(found.ignored) == 8


def test_a_mirror_of_class_folders_is_an_imagefolder(paint_classes, tmp_path):
    for split in ("train", "test"):
        paint_classes(split, {CLASSES[1]: 2, CLASSES[0]: 2})
    (tmp_path / "devkit").mkdir()
    save_annotations(tmp_path / "devkit" / "cars_train_annos.mat", ["00001.jpg"], [1])
    data = read_classification(tmp_path)
    assert (data.layout, data.classes) == ("imagefolder", CLASSES[:2])
    paint_classes("other/cars_train", {CLASSES[1]: 2, CLASSES[0]: 2})
    assert not cars.detect(tmp_path / "other")


def test_a_mirror_with_a_csv_file_is_read_from_that(write, tmp_path):
    folder = write()
    lines = [f"cars_train/{k:05}.jpg,{CLASSES[k % 3]}\n" for k in range(1, 10)]
    (folder / "labels.csv").write_text("".join(lines))
    assert read_classification(folder).layout == "csv"
    (folder / "labels.csv").write_text("name,year\nsomebody,2013\n")
    assert read_classification(folder).layout == "cars"


def test_contents_that_do_not_fit_are_named(write, tmp_path):
    folder = write()
    train = folder / "devkit" / "cars_train_annos.mat"

    def message(path=train):
        with pytest.raises(ValueError) as error:  # noqa: PT011 (compared by the caller)
            read_classification(tmp_path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
        return str(error.value).removeprefix(f"{path}: ")

    save_annotations(train, ["00001.jpg", "00002.jpg"], [1, 4])
    assert message() == "'class' must be whole numbers from 1 to 3, not 4"
    save_annotations(train, ["00001.jpg", "00002.jpg"], [0, 1])
    assert message() == "'class' must be whole numbers from 1 to 3, not 0"
    save_annotations(train, ["00001.jpg", "00002.jpg"])
    assert message() == "'annotations' must be a struct array with fname and class"
    savemat(train, {"annotations": np.arange(5)})
    assert message() == "'annotations' must be a struct array with fname and class"
    save_annotations(train, ["00001.jpg", 7], [1, 2])
    assert message() == "'fname' must be the name of a file"
    savemat(train, {"other": 1})
    assert message() == "no variable 'annotations' in it"
    train.write_bytes(train.read_bytes()[:150])
    assert message().startswith("will not read as a MATLAB file (")
    train.unlink()
    assert message() == "there is no such file"
    meta = folder / "devkit" / "cars_meta.mat"
    save_meta(meta, ("a", "b", "a"))
    assert message(meta) == "the class name 'a' stands there twice"
    savemat(meta, {"class_names": np.arange(3)})
    assert message(meta) == "'class_names' must be a cell array of names"
    shutil.rmtree(folder / "devkit")
    assert message(meta) == "there is no such file"


def test_a_missing_picture_is_found_by_the_check(write, tmp_path):
    path = write() / "cars_test" / "00003.jpg"
    path.unlink()
    report = check_classification(tmp_path)
    assert report.damaged_files == (f"{path}: there is no such file",)


def test_no_files(tmp_path):
    assert not cars.detect(tmp_path)
    with pytest.raises(ValueError, match=r"no pictures of Stanford Cars such as cars_train/00001"):
        cars.read(tmp_path)


def test_a_mirror_with_doubled_folders_is_read_too(write, tmp_path):
    folder = write()
    for split in ("train", "test"):
        inner = tmp_path / f"cars_{split}"
        (folder / f"cars_{split}").rename(inner)
        (folder / f"cars_{split}").mkdir()
        inner.rename(folder / f"cars_{split}" / f"cars_{split}")
    data = read_classification(folder)
    assert data.layout == "cars"
    assert len(data.splits["test"]) == 6
    assert data.splits["test"].load(0).mode == "RGB"


def test_a_mirror_with_class_folders_in_the_splits_folders_is_divided(paint_classes, tmp_path):
    paint_classes("cars_train", {"Audi": 4, "BMW": 4})
    paint_classes("cars_test", {"Audi": 2, "BMW": 2}, seed=50)
    data = read_classification(tmp_path)
    assert (data.layout, data.classes) == ("imagefolder", ("Audi", "BMW"))
    assert len(data.splits["test"]) == 4
    assert data.origins["test"] == "folder cars_test/"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["00001.jpg", "00001.jpg"], "picture 00001.jpg stands there twice"),
        (["../cars_test/00001.jpg", "00002.jpg"], "'fname' must be the name of a file"),
    ],
)
def test_file_names_that_cannot_be(write, names, message):
    folder = write()
    path = folder / "devkit" / "cars_train_annos.mat"
    save_annotations(path, names, [1, 2])
    with pytest.raises(ValueError, match=f"^{path}: {message}$"):
        cars.read(folder)
