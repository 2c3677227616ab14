import pickle

import numpy as np
import pytest

from foveal.data import read_classification
from foveal.data.splits import class_counts


def lengths(data):
    return {split: len(pictures) for split, pictures in data.splits.items()}


def of_class(data, split):
    return class_counts(data.splits[split].targets, len(data.classes)).tolist()


@pytest.mark.parametrize("arguments", [(None,), (None, "fashion")])
def test_built_in_pictures(arguments):
    data = read_classification(*arguments)
    assert (data.layout, data.root, data.image_size) == ("fashion", None, 28)
    assert lengths(data) == {"train": 5400, "val": 600, "test": 2000}
    assert of_class(data, "val") == [60] * 10
    assert data.origins["test"] == "built-in Fashion-MNIST, file t10k-images-idx3-ubyte.gz"
    data.require_training()


@pytest.mark.parametrize(
    ("name", "layout", "expected", "side"),
    [
        ("CIFAR10", "cifar", {"train": 2700, "val": 300, "test": 1000}, 32),
        ("FashionMNIST", "idx", {"train": 5400, "val": 600, "test": 2000}, 28),
        ("digits/MNIST", "idx", {"train": 5400, "val": 600, "test": 5000}, 28),
        ("PACS/PACS/photo", "imagefolder", {"train": 168, "val": 21, "test": 21}, None),
        ("PACS/PACS/sketch", "imagefolder", {"train": 168, "val": 21, "test": 21}, None),
    ],
)
def test_real_data_in_their_layout(pack, name, layout, expected, side):
    data = read_classification(pack(name))
    assert (data.layout, data.image_size) == (layout, side)
    assert lengths(data) == expected
    assert len(data.classes) == (7 if "PACS" in name else 10)
    balanced = np.array(of_class(data, "train")) + of_class(data, "val")
    if "PACS" in name:
        balanced += of_class(data, "test")
    assert len(set(balanced.tolist())) == 1  # every pack's training part is balanced
    for pictures in data.splits.values():
        assert pictures.load(len(pictures) - 1).mode == "RGB"


def test_real_usps(pack):
    pytest.importorskip("h5py", reason="needs the extra data")
    data = read_classification(pack("digits"), "usps")
    assert lengths(data) == {"train": 6562, "val": 729, "test": 1004}
    assert of_class(data, "test") == [173, 138, 102, 89, 92, 78, 88, 74, 86, 84]
    total = np.array(of_class(data, "train")) + of_class(data, "val")
    assert total.tolist() == [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]


def test_real_cifar_has_its_class_names(pack):
    data = read_classification(pack("CIFAR10"))
    assert data.classes[0] == "airplane"
    assert data.classes[9] == "truck"
    assert of_class(data, "test") == [100] * 10


def test_real_imagenet_samples_keep_imagenets_index(pack):
    data = read_classification(pack("imagenet-samples"))
    assert lengths(data) == {"train": 0, "val": 200, "test": 200}
    assert len(data.classes) == 1000
    val = data.splits["val"]
    from timm.data import ImageNetInfo

    wnids = ImageNetInfo().label_names()
    for k in (0, 17, 199):
        wnid = val.name(k).split("/")[-2]
        assert val.targets[k] == wnids.index(wnid)
    assert data.classes[0] == "tench"
    with pytest.raises(ValueError, match=r"no training pictures .*only folder val/.*foveal eval"):
        data.require_training()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mini-voc", "the VOC layout: did you mean `foveal train segment`?"),
        ("BCCD", "the VOC layout: did you mean `foveal train detect`?"),
        ("CamVid", "the CamVid layout: did you mean `foveal train segment`?"),
        ("coco-tiny", "the COCO layout: did you mean `foveal train detect`?"),
        ("BSDS500", "the BSDS500 layout: did you mean `foveal train dense`?"),
        ("skeleton-standin", "the SK-LARGE layout: did you mean `foveal train dense`?"),
        ("saliency-standin", "the saliency layout: did you mean `foveal train dense`?"),
        ("CamVid/CamVid/trainannot", "label masks: did you mean `foveal train segment`"),
        ("mini-voc/VOCdevkit/VOC2012/SegmentationClass", "label masks: did you mean"),
        ("saliency-standin/DUTS-TR/DUTS-TR-Mask", "label masks: did you mean"),
        ("coco-tiny/train2017", "50 pictures such as 000000005802.jpg, but no class folders"),
        ("PACS", "domains (art_painting, cartoon, photo, sketch): did you mean one of them, such"),
        ("PACS/PACS", "PACS/PACS/art_painting, or `foveal train adapt`?"),
        ("digits", "choose one with --data.layout idx or --data.layout usps"),
    ],
)
def test_real_data_of_other_kinds_are_answered_in_one_sentence(pack, name, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared whole below)
        read_classification(pack(name))
    assert str(error.value).startswith(f"{pack(name)}: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_layout_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="unknown layout 'imagefoldr': did you mean 'imagefolder'"):
        read_classification(tmp_path, "imagefoldr")


def test_root_and_layout_must_go_together(tmp_path):
    with pytest.raises(ValueError, match=r"layout 'cifar' needs data\.root"):
        read_classification(None, "cifar")
    with pytest.raises(ValueError, match="built in and reads no folder: leave out"):
        read_classification(tmp_path, "fashion")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="the ImageFolder layout is a folder, not a file"):
        read_classification(tmp_path / "a.txt", "imagefolder")
    with pytest.raises(ValueError, match=r"layout 'voc' is not of .*`foveal train segment`"):
        read_classification(tmp_path, "voc")


def test_the_folder_one_stands_in_has_a_name(paint_classes, tmp_path, monkeypatch):
    paint_classes("flowers", {"a": 3, "b": 3})
    monkeypatch.chdir(tmp_path / "flowers")
    data = read_classification(".")
    assert data.origins["test"] == "10 % of folder flowers/, drawn with seed 0"
    assert data.splits["train"].load(0).size == (10, 8)


def test_home_is_expanded(paint_classes, tmp_path, monkeypatch):
    paint_classes("flowers", {"a": 3, "b": 3})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lengths(read_classification("~/flowers")) == {"train": 2, "val": 2, "test": 2}


def test_a_layout_named_by_the_user_is_not_second_guessed(paint, tmp_path):
    from PIL import Image

    for name in ("0", "1"):
        for k in range(3):
            paint(f"{name}/{k}.png")
            Image.new("L", (8, 8), 255 * (k % 2)).save(tmp_path / name / f"{k}.png")
    with pytest.raises(ValueError, match="label masks"):
        read_classification(tmp_path)
    assert lengths(read_classification(tmp_path, "imagefolder")) == dict.fromkeys(
        ("train", "val", "test"), 2
    )


def test_several_labels_of_a_list(paint, tmp_path):
    for k in range(12):
        paint(f"list/{k}.png", k)
    lines = [f"{k}.png,{'x;y' if k % 2 else 'y'}\n" for k in range(12)]
    (tmp_path / "list" / "labels.csv").write_text("".join(lines))
    data = read_classification(tmp_path / "list", multi_label=True)
    assert data.multi_label
    assert data.splits["train"].targets.shape == (8, 2)


def test_class_errors_are_one_sentence(paint_classes, tmp_path):
    paint_classes("one/train", {"a": 2})
    with pytest.raises(ValueError, match="one: there is only the class 'a'"):
        read_classification(tmp_path / "one")
    paint_classes("one", {"val/a": 1})
    with pytest.raises(ValueError, match="one: there is only the class 'a'"):
        read_classification(tmp_path / "one")
    for split, names in (("train", "abc"), ("val", "ab")):
        paint_classes(f"lacking/{split}", dict.fromkeys(names, 1))
    with pytest.raises(ValueError, match=r"lacking: val has no pictures of 'c'$"):
        read_classification(tmp_path / "lacking")
    (tmp_path / "lacking" / "train" / "d").mkdir()
    with pytest.raises(ValueError, match=r"train/d: no pictures in this class folder$"):
        read_classification(tmp_path / "lacking")


def test_two_readings_agree_and_the_seed_decides(paint_classes, tmp_path):
    paint_classes(".", {"a": 20, "b": 20})

    def val(seed):
        pictures = read_classification(tmp_path, split_seed=seed).splits["val"]
        return [pictures.name(k) for k in range(len(pictures))]

    assert val(0) == val(0) != val(1)


def test_data_travel_to_worker_processes(paint_classes, tmp_path):
    paint_classes(".", {"a": 5, "b": 5})
    for data in (read_classification(tmp_path), read_classification(None)):
        again = pickle.loads(pickle.dumps(data.splits["val"]))
        assert again.name(0) == data.splits["val"].name(0)
        assert again.load(0).tobytes() == data.splits["val"].load(0).tobytes()


def test_labels_are_for_layouts_with_several_sets():
    message = "fashion: the built-in fashion layout has one set of labels: leave out data.labels"
    with pytest.raises(ValueError, match=message):
        read_classification(None, labels="coarse")
