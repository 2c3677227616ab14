import pytest

from foveal.data import pairs, read_segmentation
from foveal.data.layouts import detect


def found_in(root):
    found = pairs.read(root)
    assert found.problems == ()
    return {split: [part.name(k) for k in range(len(part))] for split, part in found.parts.items()}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("Images", "GT"),
        ("img", "ground_truth"),
        ("my-images", "my_labels"),
        ("images", "train_masks"),
    ],
)
def test_two_folders_under_the_names_in_use(paint_pairs, tmp_path, images, masks):
    paint_pairs(images, masks, "abc")
    assert detect(tmp_path) == "pairs"
    assert found_in(tmp_path) == {"all": [f"{tmp_path}/{images}/{stem}.png" for stem in "abc"]}
    found = pairs.read(tmp_path)
    assert found.origins == {"all": f"folders {images}/ and {masks}/"}
    assert found.parts["all"].mask_name(1) == f"{tmp_path}/{masks}/b.png"


@pytest.mark.parametrize(
    "folders",
    [
        {"train": ("train/images", "train/masks"), "val": ("valid/images", "valid/masks")},
        {"train": ("images/train", "masks/training"), "val": ("images/val", "masks/validation")},
        {"train": ("train_images", "train-masks"), "val": ("val_images", "val_masks")},
        {"train": ("images_train", "gt_train"), "test": ("images_test", "gt_test")},
    ],
)
def test_splits_wherever_they_are_called_so(paint_pairs, tmp_path, folders):
    for seed, (split, (images, masks)) in enumerate(folders.items()):
        paint_pairs(images, masks, [f"{split}1", f"{split}2"], seed=10 * seed)
    assert detect(tmp_path) == "pairs"
    assert found_in(tmp_path) == {
        split: [f"{tmp_path}/{images}/{split}{k}.png" for k in (1, 2)]
        for split, (images, _) in folders.items()
    }


def test_classes_are_counted_in_the_masks(paint_pairs, paint_mask, tmp_path):
    paint_pairs("images", "masks", "abcd", [0, 1, 255])
    paint_mask("masks/c.png", [4], "P")
    (tmp_path / "masks" / "d.png").write_bytes(b"")  # is reported where pictures are read
    found = pairs.read(tmp_path)
    assert found.classes == ("0", "1", "2", "3", "4")
    assert found.colors.shape == (5, 3)
    assert found.notes[0].startswith("5 classes, numbered, because the largest value in 4 masks")
    part = found.parts["all"]
    assert [part.load(k)[1].max() for k in range(3)] == [255, 255, 4]


def test_a_list_of_names_tells_the_classes(paint_pairs, tmp_path):
    paint_pairs("images", "masks", "ab", [0, 1, 3])
    (tmp_path / "classes.txt").write_text("ground\nroof\nbare soil\n")
    found = pairs.read(tmp_path)
    assert found.classes == ("ground", "roof", "bare soil")
    assert found.notes == ()
    with pytest.raises(ValueError, match=r"a\.png: has the value 3 in 20 pixels, where 0 to 2 and"):
        found.parts["all"].load(0)


def test_without_a_division_parts_are_drawn_by_seed(paint_pairs, tmp_path):
    paint_pairs("images", "masks", [f"{k:02}" for k in range(20)])
    drawn = read_segmentation(tmp_path, val_fraction=0.25, test_fraction=0.1)
    # 10 % of 20, then 25 % of the remaining 18, halves rounded up
    assert {s: len(p) for s, p in drawn.splits.items()} == {"train": 13, "val": 5, "test": 2}
    names = [p.name(k) for p in drawn.splits.values() for k in range(len(p))]
    assert len(set(names)) == 20
    again = read_segmentation(tmp_path, val_fraction=0.25, test_fraction=0.1)
    other = read_segmentation(tmp_path, val_fraction=0.25, test_fraction=0.1, split_seed=1)
    assert [p.name(k) for p in again.splits.values() for k in range(len(p))] == names
    assert [p.name(k) for p in other.splits.values() for k in range(len(p))] != names
    assert drawn.origins["val"] == (
        "25 % of the rest of folders images/ and masks/, drawn with seed 0"
    )


def test_what_is_not_read_is_listed(paint_pairs, paint, tmp_path):
    paint_pairs("images/train", "masks/train", "abc")
    paint("images/test/d.png")  # there are no masks of these
    paint("images/e.png")
    for name in ("README.md", "masks/train/list.csv"):
        (tmp_path / name).touch()
    found = pairs.read(tmp_path)
    assert list(found.parts) == ["train"]
    assert [
        str(tmp_path / n)
        for n in ("masks/train/list.csv", "README.md", "images/e.png", "images/test/d.png")
    ] == list(found.ignored)


def test_wrong_input(paint, paint_mask, paint_pairs, tmp_path):
    paint_pairs("two/images", "two/masks", "a")
    paint_mask("two/gt/a.png", [0])
    with pytest.raises(ValueError, match=r"which masks belong to which pictures\? There are"):
        pairs.read(tmp_path / "two")
    paint("none/images/a.png")
    with pytest.raises(ValueError, match=r"none: there is no folder of pictures such as images/"):
        pairs.read(tmp_path / "none")
    paint_pairs("one/images", "one/masks", "ab", [0, 255])
    with pytest.raises(ValueError, match=r"one: the 2 masks show 1 class, .*values 0 and 1$"):
        pairs.read(tmp_path / "one")
    paint("rgb/images/a.png")
    paint("rgb/masks/a.png")
    with pytest.raises(ValueError, match=r"masks/a\.png: has colours \(mode RGB\)"):
        pairs.read(tmp_path / "rgb")
    paint("odd/images/a.png")
    paint_mask("odd/masks/b.png", [0])
    with pytest.raises(ValueError, match=r"images/a\.png: there is no mask a in .*/odd/masks"):
        pairs.read(tmp_path / "odd")
    (tmp_path / "empty" / "images").mkdir(parents=True)
    (tmp_path / "empty" / "masks").mkdir()
    with pytest.raises(ValueError, match="empty: no pictures in it"):
        pairs.read(tmp_path / "empty")
    paint_pairs("named/images", "named/masks", "a")
    (tmp_path / "named" / "classes.txt").write_text("x\nx\n")
    with pytest.raises(ValueError, match=r"classes\.txt: the class name 'x' stands there twice"):
        pairs.read(tmp_path / "named")
    (tmp_path / "named" / "classes.txt").write_text("\n".join(map(str, range(256))))
    with pytest.raises(ValueError, match=r"classes\.txt: has 256 names, where at most 255 are"):
        pairs.read(tmp_path / "named")


def test_a_picture_without_mask_stops_reading(paint_pairs, paint, tmp_path):
    paint_pairs("images", "masks", "abc")
    paint("images/d.png")
    paint("images/e.png")
    with pytest.raises(ValueError, match=r"d\.png: there is no mask d in .* \(and 1 more such"):
        read_segmentation(tmp_path)


def test_black_and_white_masks_are_not_taken_for_one_class(paint_pairs, tmp_path):
    """With names given nobody would notice: 255 is ignored, and class 0 is learned perfectly."""
    paint_pairs("images", "masks", "abc", [0, 255])
    (tmp_path / "classes.txt").write_text("background\nobject\n")
    with pytest.raises(ValueError, match=r"a\.png: the masks are black and white, .* 0 and 1$"):
        pairs.read(tmp_path)
