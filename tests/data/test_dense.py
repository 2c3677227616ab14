import numpy as np
import pytest

from foveal.config import DENSE_TASKS
from foveal.data import join, read_classification, read_dense
from foveal.data.dense import tasks_of


@pytest.mark.parametrize("task", DENSE_TASKS)
def test_without_a_root_the_scenes_are_read(task):
    """All of them to train on, of the others the first, as scoring lines takes long."""
    data = read_dense(None, task=task)
    assert (data.layout, data.root, data.task, data.image_size) == ("scenes", None, task, 128)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 6000, "val": 50, "test": 200}
    assert data.splits["val"].name(49) == "scenes-v1-clean-val[49]"
    assert data.origins["train"] == "built-in scenes, version 1, clean"
    assert data.origins["test"] == "200 of 1,200 built-in scenes, version 1, clean"
    data.require_training()


@pytest.fixture
def pairs(paint, paint_mask):
    def save(name, stems="abcd"):
        for k, stem in enumerate(stems):
            paint(f"{name}/images/{stem}.png", k)
            paint_mask(f"{name}/masks/{stem}.png", [0, 255])

    return save


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task": "edges"}, r"unknown task 'edges': did you mean 'edge'\?"),
        ({"layout": "bsds50"}, r"unknown layout 'bsds50': did you mean 'bsds500'\?"),
        ({"layout": "camvid"}, "layout 'camvid' is not of `foveal train dense`: did you mean `fov"),
        ({"layout": "scenes"}, "layout 'scenes' is built in and reads no folder: leave out"),
        ({"domain": "night"}, "the image-and-mask layout has one domain: leave out data.domain"),
        (
            {"task": None},
            r"say which maps are meant \(--labels, in Python task=\), saliency, edge o",
        ),
        ({"val_fraction": 1.5}, r"val_fraction must lie between 0 and 1, not 1\.5"),
    ],
)
def test_what_does_not_fit(pairs, tmp_path, arguments, sentence):
    pairs("set")
    with pytest.raises(ValueError, match=sentence):
        read_dense(tmp_path / "set", **{"task": "edge", **arguments})


def test_data_of_other_tasks_are_told(paint_classes, pairs, tmp_path):
    paint_classes("folders", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"ImageFolder layout: did you mean `foveal train classif"):
        read_dense(tmp_path / "folders", task="edge")
    with pytest.raises(FileNotFoundError, match=r"there is no folder or file .*absent"):
        read_dense(tmp_path / "absent", task="edge")
    pairs("ECSSD")
    with pytest.raises(ValueError, match="the saliency layout: did you mean `foveal train dense`"):
        read_classification(tmp_path / "ECSSD")
    with pytest.raises(
        ValueError, match="the saliency layout has no edge maps, it is for saliency"
    ):
        read_dense(tmp_path / "ECSSD", task="edge")
    (tmp_path / "none" / "images").mkdir(parents=True)
    (tmp_path / "none" / "groundTruth").mkdir()
    with pytest.raises(ValueError, match="none: no pictures in it"):
        read_dense(tmp_path / "none", "sk_large")
    with pytest.raises(ValueError, match=r"layout 'bsds500' needs data\.root: the folder or file"):
        read_dense(None, "bsds500")


def test_too_few_pictures_to_divide(pairs, tmp_path):
    pairs("set", "ab")
    with pytest.raises(ValueError, match="there are too few pictures for the splits"):
        read_dense(tmp_path / "set", task="edge")


def test_a_root_may_be_relative(pairs, tmp_path, monkeypatch):
    pairs("set")
    monkeypatch.chdir(tmp_path)
    data = read_dense("set", task="saliency")
    assert data.root == "set"
    assert data.splits["train"].name(0).startswith("set/")
    assert data.splits["train"].load(0)[0].size == (10, 8)


def test_empty_truth_is_allowed(pairs, paint_mask, tmp_path):
    pairs("set")
    for stem in "abcd":
        paint_mask(f"set/masks/{stem}.png", [0])
    data = read_dense(tmp_path / "set", task="skeleton")
    _, values = data.splits["train"].load(0)
    assert values.dtype == np.float32
    assert not values.any()
    assert not data.splits["train"].annotations(0)[0].any()


def test_scenes_have_maps_of_all_tasks():
    assert tasks_of(None) == tasks_of(None, "scenes") == DENSE_TASKS


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["saliency"], ("saliency",)),
        (["contours"], ("edge",)),
        (["symmetry", "salient"], ("saliency", "skeleton")),
        (["skeleton", "edges", "saliency"], DENSE_TASKS),
        (["masks", "edge"], ("edge",)),
    ],
)
def test_tasks_of_a_folder_are_what_its_maps_are_called_after(
    paint_pairs, tmp_path, folders, expected
):
    for folder in folders:
        paint_pairs("set/images", f"set/{folder}", "abcd")
    assert tasks_of(tmp_path / "set") == expected


def test_tasks_of_a_layout_for_one_task(pairs, write_edges, paint, tmp_path):
    pairs("ECSSD")
    assert tasks_of(tmp_path / "ECSSD") == ("saliency",)
    for split in ("train", "val", "test"):
        paint(f"BSDS500/images/{split}/1.jpg")
        write_edges(f"BSDS500/groundTruth/{split}/1.mat", np.eye(8, 10, dtype=bool))
    assert tasks_of(tmp_path / "BSDS500") == ("edge",)


def test_maps_that_are_called_after_no_task(pairs, tmp_path):
    pairs("set")
    (tmp_path / "train.lst").write_text("set/images/a.png set/masks/a.png\n")
    for root in ("set", "train.lst"):
        with pytest.raises(ValueError, match=r"say what its maps are of: --tasks saliency, edge"):
            tasks_of(tmp_path / root)
    with pytest.raises(FileNotFoundError, match=r"there is no folder or file .*absent"):
        tasks_of(tmp_path / "absent")
    with pytest.raises(ValueError, match="did you mean 'bsds500'"):
        tasks_of(tmp_path / "set", "bsds50")


def test_any_tasks_of_scenes_are_one_set(few_scenes):
    """Each picture with the maps asked for, and no others."""
    for tasks in (("edge",), ("saliency", "skeleton"), DENSE_TASKS):
        found = join({task: read_dense(None, task=task).splits["test"] for task in tasks})
        assert found.set_tasks == (tasks,)
        assert found.sizes == (4,)
        image, truths = found.decode(2)
        assert tuple(truths) == tasks
        assert all(truth.size == image.size for truth in truths.values())
        for task, truth in truths.items():
            alone = read_dense(None, task=task).splits["test"].decode(2)
            assert alone[0].tobytes() == image.tobytes()
            assert (alone[1].map == truth.map).all()
            assert 0 < truth.map.mean() < 1
            assert (truth.annotations[0] == (truth.map == 1)).all()
