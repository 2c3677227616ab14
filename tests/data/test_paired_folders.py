import pytest

from foveal.data.paired_folders import MASK_WORDS, elsewhere, find_folders, has_folders

LINES = ("line", "lines")


def test_the_words_of_the_partners_decide(paint, tmp_path):
    for folder in ("images", "masks", "lines", "other"):
        paint(f"{folder}/a.png")
    assert has_folders(tmp_path, LINES)
    assert not has_folders(tmp_path, ("maps",))
    found = find_folders(tmp_path, LINES, "lines")
    assert found["all"].masks == tmp_path / "lines"
    assert found["all"].origin(tmp_path) == "folders images/ and lines/"
    assert find_folders(tmp_path, MASK_WORDS, "masks")["all"].masks == tmp_path / "masks"
    left = [str(path.relative_to(tmp_path)) for path in elsewhere(tmp_path, found.values())]
    assert left == ["masks/a.png", "other/a.png"]


@pytest.mark.parametrize(
    ("images", "lines"),
    [
        ("train/images", "train/lines"),
        ("images/train", "lines/training"),
        ("train_images", "train-line"),
    ],
)
def test_splits_wherever_they_are_called_so(paint, tmp_path, images, lines):
    paint(f"{images}/a.png")
    paint(f"{lines}/a.png")
    found = find_folders(tmp_path, LINES, "lines")
    assert {split: (both.images, both.masks) for split, both in found.items()} == {
        "train": (tmp_path / images, tmp_path / lines)
    }


def test_messages_speak_of_the_partners(paint, tmp_path):
    paint("images/a.png")
    with pytest.raises(ValueError, match="beside one of lines such as lines/"):
        find_folders(tmp_path, LINES, "lines")
    paint("line/a.png")
    paint("lines/a.png")
    with pytest.raises(ValueError, match="which lines belong to which pictures"):
        find_folders(tmp_path, LINES, "lines")
