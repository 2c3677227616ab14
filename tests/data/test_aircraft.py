import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import FGVCAircraft

from foveal.cli import main
from foveal.data import aircraft, read_classification
from foveal.data.check import check_classification
from foveal.data.pictures import DamagedPictureError

NAMES = {
    "variants": ["707-320", "An-12", "F/A-18", "Falcon 2000"],
    "families": ["Boeing 707", "An-12", "F/A-18", "Falcon 2000"],
    "manufacturers": ["Boeing", "Antonov", "McDonnell Douglas", "Dassault Aviation"],
}
SPLITS = {"train": range(0, 8), "val": range(8, 12), "trainval": range(12), "test": range(12, 20)}


def picture(k):
    return f"{34309 + k:07}"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a miniature: picture k is of class k % 4.

    The bottom 20 rows of each picture, 30 wide and 24 to 27 high, are black, the rest is white.
    """

    def save(end: bytes = b"\n", last: bytes = b"\n"):
        folder = tmp_path / "fgvc-aircraft-2013b" / "data"
        (folder / "images").mkdir(parents=True)
        for k in range(20):
            pixels = np.zeros((24 + k % 4, 30, 3), dtype=np.uint8)
            pixels[:-20] = 255
            pixels[0, k] = 0  # no two pictures are equal
            Image.fromarray(pixels).save(folder / "images" / f"{picture(k)}.jpg", format="PNG")

        def write_lines(name, lines):
            (folder / name).write_bytes(end.join(line.encode() for line in lines) + last)

        for plural, names in NAMES.items():
            write_lines(f"{plural}.txt", names)
            singular = {"families": "family"}.get(plural, plural[:-1])
            for split, numbers in SPLITS.items():
                lines = [f"{picture(k)} {names[k % 4]}" for k in numbers]
                write_lines(f"images_{singular}_{split}.txt", lines)
        return folder

    return save


@pytest.mark.parametrize(("end", "last"), [(b"\n", b"\n"), (b"\r\n", b"\r\n"), (b"\n", b"")])
@pytest.mark.parametrize("labels", aircraft.LABELS)
def test_torchvision_reads_the_same_but_for_the_banner(write, tmp_path, end, last, labels):
    folder = write(end, last)
    for root in (tmp_path, folder.parent, folder):
        assert aircraft.detect(root)
        found = aircraft.read(root, labels)
        assert list(found.parts) == ["train", "val", "test"]
        for split, ours in found.parts.items():
            theirs = FGVCAircraft(tmp_path, split, labels)
            assert found.classes == tuple(theirs.classes)
            assert len(ours) == len(theirs)
            for k, (image, target) in enumerate(theirs):
                assert ours.targets[k] == target
                top = image.crop((0, 0, image.width, image.height - 20))
                assert ours.load(k).tobytes() == top.tobytes()
        assert not found.ignored


def test_names_hold_blanks_and_slashes(write, tmp_path):
    write()
    found = aircraft.read(tmp_path)
    assert found.classes == ("707-320", "An-12", "F/A-18", "Falcon 2000")
    assert found.parts["val"].targets.tolist() == [0, 1, 2, 3]
    found = aircraft.read(tmp_path, "manufacturer")
    assert [found.classes[k] for k in found.parts["test"].targets[2:4]] == [
        "McDonnell Douglas",
        "Dassault Aviation",
    ]


def test_the_banner_is_cut_off_wherever_a_picture_is_read(write, tmp_path):
    write()
    found = aircraft.read(tmp_path)
    assert "a copyright banner, are cut off" in found.notes[0]
    for index in range(4):
        image, mode = found.parts["train"].decode(index)
        assert (image.size, mode) == ((30, 4 + index), "RGB")
        assert np.asarray(image)[1:].min() == 255
        assert found.parts["train"].load(index).tobytes() == image.tobytes()
    report = check_classification(tmp_path)
    assert report.sizes == {(30, height): 5 for height in (4, 5, 6, 7)}
    assert report.problems == ()


def test_a_picture_that_is_all_banner_is_damaged(write, tmp_path):
    folder = write()
    path = folder / "images" / f"{picture(0)}.jpg"
    Image.new("RGB", (30, 20)).save(path)
    pictures = aircraft.read(tmp_path).parts["train"]
    message = f"{path}: 20 pixels high, of which 20 are to be cut off"
    with pytest.raises(DamagedPictureError, match=f"^{message}$"):
        pictures.load(0)
    assert check_classification(tmp_path).damaged_files == (message,)
    path.unlink()
    with pytest.raises(DamagedPictureError, match="there is no such file"):
        pictures.probe(0)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_trainval_is_for_training_where_it_is_not_divided(write, tmp_path, missing):
    folder = write()
    path = folder / f"images_variant_{missing}.txt"
    path.unlink()
    data = read_classification(tmp_path)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 8, "val": 4, "test": 8}
    assert data.origins["train"] == "the rest of file images_variant_trainval.txt"
    assert data.notes[1] == (
        f"{path}: there is no such file, so all of images_variant_trainval.txt is for training"
    )
    assert read_classification(tmp_path, labels="family").origins["val"].endswith("_val.txt")


def test_labels_are_chosen_and_unknown_ones_named(write, tmp_path, capsys):
    folder = write()
    for root in (tmp_path, folder.parent, folder):
        data = read_classification(root, labels="family")
        assert (data.layout, data.classes) == ("aircraft", tuple(NAMES["families"]))
        assert {s: len(p) for s, p in data.splits.items()} == {"train": 8, "val": 4, "test": 8}
    with pytest.raises(ValueError, match=r"unknown labels 'familly': did you mean 'family'\?"):
        read_classification(tmp_path, labels="familly")
    assert main(["data", "check", str(tmp_path), "--labels", "manufacturer"]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path}: layout aircraft, 4 classes" in shown
    assert "  McDonnell Douglas " in shown


def test_unlisted_pictures_are_told(write, tmp_path):
    folder = write()
    Image.new("RGB", (30, 30)).save(folder / "images" / "1.jpg")
    assert aircraft.read(tmp_path).ignored == (str(folder / "images" / "1.jpg"),)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "images_variant_train.txt",
            "0034309 F/A18\n",
            r"images_variant_train\.txt: picture 0034309 has an unknown variant 'F/A18': "
            r"did you mean 'F/A-18'\?",
        ),
        (
            "images_variant_test.txt",
            "0034309 F/A-18\n",
            r"images_variant_test\.txt: picture 0034309 is in .*/images_variant_train\.txt too",
        ),
        (
            "images_variant_val.txt",
            "0034309\n",
            r"images_variant_val\.txt: the line '0034309' must have two columns",
        ),
        ("variants.txt", "a\na\n", r"variants\.txt: the class name 'a' stands there twice"),
    ],
)
def test_what_does_not_fit_is_named(write, tmp_path, name, content, message):
    folder = write()
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"^{folder}/{message}$"):
        read_classification(tmp_path)


@pytest.mark.parametrize("name", ["variants.txt", "images_variant_test.txt"])
def test_a_missing_file_is_named(write, tmp_path, name):
    path = write() / name
    path.unlink()
    with pytest.raises(ValueError, match=f"^{path}: there is no such file$"):
        read_classification(tmp_path)


def test_no_files(tmp_path):
    assert not aircraft.detect(tmp_path)
    with pytest.raises(ValueError, match="no files of FGVC-Aircraft such as images_variant_train"):
        aircraft.read(tmp_path)
