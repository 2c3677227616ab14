import pytest

from foveal.data import read_classification, read_segmentation
from foveal.data.segmentation import find_segmentation


def test_without_a_root_the_scenes_are_read():
    data = read_segmentation(None)
    assert (data.layout, data.root, data.image_size) == ("scenes", None, 128)
    assert data.classes[:2] == ("ground", "T-shirt/top")
    assert data.colors.shape == (11, 3)
    data.require_training()


def test_evaluation_parts_alone(paint_pairs, tmp_path):
    paint_pairs("val/images", "val/masks", "ab")
    data = read_segmentation(tmp_path)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 0, "val": 2, "test": 2}
    assert data.root == str(tmp_path)
    with pytest.raises(ValueError, match=r"no training pictures .*only folders val/images/"):
        data.require_training()


def test_too_few_pictures_to_divide(paint_pairs, tmp_path):
    paint_pairs("images", "masks", "ab")
    with pytest.raises(ValueError, match="there are too few pictures for the splits"):
        read_segmentation(tmp_path)
    with pytest.raises(ValueError, match=r"val_fraction must lie between 0 and 1, not 1\.5"):
        read_segmentation(tmp_path, val_fraction=1.5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"layout": "camvit"}, r"unknown layout 'camvit': did you mean 'camvid'\?"),
        ({"layout": "cifar"}, "layout 'cifar' is not of `foveal train segment`: did you mean `fo"),
        ({"layout": "coco"}, "layout 'coco' is not of `foveal train segment`: did you mean `fov"),
        ({"layout": "scenes"}, "layout 'scenes' is built in and reads no folder: leave out"),
        ({"labels": "fine"}, "the image-and-mask layout has one set of labels: leave out data.lab"),
        ({"domain": "night"}, "the image-and-mask layout has one domain: leave out data.domain"),
    ],
)
def test_what_does_not_fit(paint_pairs, tmp_path, arguments, sentence):
    paint_pairs("images", "masks", "abcd")
    with pytest.raises(ValueError, match=sentence):
        read_segmentation(tmp_path, **arguments)


def test_scenes_know_their_domains():
    with pytest.raises(ValueError, match=r"unknown domain 'nigth': did you mean 'night'\?"):
        read_segmentation(None, domain="nigth")
    with pytest.raises(ValueError, match=r"layout 'camvid' needs data\.root"):
        read_segmentation(None, "camvid")


def test_data_of_other_tasks_are_told(paint_classes, paint_mask, tmp_path):
    paint_classes("folders", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"ImageFolder layout: did you mean `foveal train classif"):
        read_segmentation(tmp_path / "folders")
    for k in range(3):
        paint_mask(f"only/{k}.png", [0, 1])
    with pytest.raises(ValueError, match=r"label masks alone: they must lie in a folder such as"):
        read_segmentation(tmp_path / "only")
    with pytest.raises(FileNotFoundError, match=r"there is no folder or file .*absent"):
        read_segmentation(tmp_path / "absent")
    (tmp_path / "voc" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "voc" / "SegmentationClass").mkdir()
    with pytest.raises(ValueError, match="the VOC layout: did you mean `foveal train segment`"):
        read_classification(tmp_path / "voc")


def test_a_forced_layout_is_found_below_its_root(paint, paint_mask, tmp_path):
    paint("outer/CamVid/train/a.png")
    paint_mask("outer/CamVid/trainannot/a.png", [0])
    name, found = find_segmentation(tmp_path / "outer", "camvid")
    assert (name, found.root) == ("camvid", str(tmp_path / "outer" / "CamVid"))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "empty" / "trainannot").mkdir()
    with pytest.raises(ValueError, match="empty: no pictures in it"):
        find_segmentation(tmp_path / "empty")


def test_a_root_may_be_relative(paint_pairs, paint, paint_mask, tmp_path, monkeypatch):
    for folders in (
        ("pairs/images", "pairs/masks"),
        ("camvid/train", "camvid/trainannot"),
        ("ade/images/training", "ade/annotations/training"),
    ):
        paint_pairs(*folders, ["ADE_1", "ADE_2", "ADE_3", "ADE_4"])
    for k in range(4):
        for folder, end in (("leftImg8bit", ""), ("gtFine", "_gtFine_labelIds")):
            end = end or "_leftImg8bit"
            paint_mask(f"cityscapes/{folder}/train/ulm/ulm_{k}{end}.png", [7])
    monkeypatch.chdir(tmp_path)
    for root, layout in (
        ("pairs", "pairs"),
        ("camvid", "camvid"),
        ("ade", "ade20k"),
        ("cityscapes", "cityscapes"),
    ):
        data = read_segmentation(root)
        assert (data.layout, data.root) == (layout, root)
        image, labels = data.splits["train"].load(0)
        assert image.size == labels.shape[::-1] == (10, 8)
        assert data.splits["train"].name(0).startswith(f"{root}/")
