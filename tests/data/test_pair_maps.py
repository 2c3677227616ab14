import numpy as np
import pytest

from foveal.config import DENSE_TASKS
from foveal.data import join, pair_maps, read_dense, read_segmentation
from foveal.data.layouts import detect


@pytest.fixture
def paint_maps(paint, paint_mask):
    def save(pictures, maps, stems="abcdef", values=(0, 51, 255)):
        for k, stem in enumerate(stems):
            paint(f"{pictures}/{stem}.jpg", k)
            paint_mask(f"{maps}/{stem}.png", values)

    return save


@pytest.mark.parametrize("task", DENSE_TASKS)
@pytest.mark.parametrize("maps", ["masks", "gt", "maps"])
def test_two_folders_serve_any_task(paint_maps, tmp_path, task, maps):
    paint_maps("images", maps)
    assert detect(tmp_path) == "pairs"
    data = read_dense(tmp_path, task=task)
    assert (data.layout, data.task) == ("pairs", task)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 4, "val": 1, "test": 1}
    _, values = data.splits["train"].load(0)
    np.testing.assert_allclose(values[:3, 0], [0, 0.2, 1], atol=1e-7)
    with pytest.raises(ValueError, match="the image-and-mask layout serves several tasks: say whi"):
        read_dense(tmp_path)


def test_one_set_with_several_labels(paint_maps, tmp_path):
    paint_maps("images/train", "saliency/train", "abcd", [255])
    paint_maps("images/val", "saliency/val", "ef", [255])
    for split, stems in (("train", "abcd"), ("val", "ef")):
        paint_maps(f"images/{split}", f"edges/{split}", stems, [0, 51])
        paint_maps(f"images/{split}", f"skeleton/{split}", stems, [0, 0, 255])
    (tmp_path / "README.md").touch()
    assert detect(tmp_path) == "pairs"
    data = {task: read_dense(tmp_path, task=task) for task in DENSE_TASKS}
    assert data["edge"].origins["val"] == "folders images/val/ and edges/val/"
    joint = join({task: one.splits["train"] for task, one in data.items()})
    assert joint.set_tasks == (DENSE_TASKS,)
    _, maps = joint.load(2)
    assert [np.unique(255 * maps[task]).round().tolist() for task in DENSE_TASKS] == [
        [255],
        [0, 51],
        [0, 255],
    ]
    assert pair_maps.read(tmp_path, "edge").ignored == (f"{tmp_path}/README.md",)


def test_drawn_splits_are_the_same_for_all_tasks(paint_maps, tmp_path):
    stems = [f"{k:02}" for k in range(20)]
    paint_maps("images", "saliency", stems)
    paint_maps("images", "skeletons", stems)
    data = [read_dense(tmp_path, task=task, split_seed=3) for task in ("saliency", "skeleton")]
    for split in ("train", "val", "test"):
        names = [[d.splits[split].name(k) for k in range(len(d.splits[split]))] for d in data]
        assert names[0] == names[1]
        joint = join({d.task: d.splits[split] for d in data})
        assert joint.set_tasks == (("saliency", "skeleton"),)


def test_a_folder_of_one_task_is_not_anothers(paint_maps, tmp_path):
    paint_maps("images", "edge")
    with pytest.raises(ValueError, match=r"images/ beside one of maps such as skeleton/"):
        read_dense(tmp_path, task="skeleton")
    with pytest.raises(ValueError, match=r"images/ beside one of masks such as masks/"):
        read_segmentation(tmp_path)


def test_a_map_without_picture_and_a_picture_without_map(paint_maps, paint, paint_mask, tmp_path):
    paint_maps("images", "edge", "abc")
    paint("images/x.jpg")
    paint_mask("edge/y.png", [0])
    with pytest.raises(ValueError, match=r"x\.jpg: there is no edge map x in .*/edge \(and 1 more"):
        read_dense(tmp_path, task="edge")


def test_two_folders_of_maps_are_too_many(paint_maps, tmp_path):
    paint_maps("images", "maps")
    paint_maps("images", "gt")
    with pytest.raises(ValueError, match="which maps belong to which pictures"):
        read_dense(tmp_path, task="edge")
