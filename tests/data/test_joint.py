import numpy as np
import pytest
from PIL import Image

from foveal.config import DENSE_TASKS
from foveal.data import join, read_dense
from foveal.data.bsds500 import read_truth
from foveal.data.joint import JointPictures
from foveal.data.maps import MapFiles
from foveal.data.masks import SizesDifferError
from foveal.data.pictures import DamagedPictureError


@pytest.fixture
def files(paint, paint_mask, tmp_path):
    """Return a function that makes the pictures of a set; a map is filled with one value."""

    def make(name, count, values, images="images"):
        pairs = []
        for k in range(count):
            picture, mapped = f"{name}/{images}/{k}.png", f"{name}/{values}/{k}.png"
            if not (tmp_path / picture).exists():
                paint(picture, hash(name) % 1000 + k)
            paint_mask(mapped, [values])
            pairs.append((picture, mapped))
        return MapFiles(tmp_path, pairs)

    return make


@pytest.fixture
def three(files):
    """Three sets: of 3, 2 and 4 pictures."""
    return {
        "skeleton": files("sk", 4, 153),
        "saliency": files("duts", 3, 51),
        "edge": files("bsds", 2, 102),
    }


def test_sets_of_different_labels_lie_one_after_the_other(three):
    joint = join(three)
    assert joint.tasks == DENSE_TASKS
    assert joint.sizes == (3, 2, 4)
    assert joint.set_tasks == (("saliency",), ("edge",), ("skeleton",))
    assert len(joint) == 9
    for index in range(9):
        task, place = (
            ("saliency", index)
            if index < 3
            else ("edge", index - 3)
            if index < 5
            else ("skeleton", index - 5)
        )
        image, maps = joint.load(index)
        assert list(maps) == [task] == list(joint.tasks_of(index))
        expected_image, expected = three[task].load(place)
        assert image.tobytes() == expected_image.tobytes()
        assert (maps[task] == expected).all()
        assert joint.name(index) == three[task].name(place)
        assert joint.map_name(index, task) == three[task].map_name(place)
        assert joint.size(index) == (10, 8)
        joint.probe(index)
        other = DENSE_TASKS[DENSE_TASKS.index(task) - 1]
        assert joint.map_name(index, other) == ""
        assert other not in joint.decode(index)[1]
        assert len(joint.decode(index)[1][task].annotations) == 1
    with pytest.raises(IndexError):
        joint.load(9)


def test_the_same_pictures_are_one_set_with_all_labels(files):
    pictures = {
        "edge": files("a", 3, 102),
        "saliency": files("a", 3, 51),
        "skeleton": files("b", 2, 153),
    }
    joint = join(pictures)
    assert joint.sizes == (3, 2)
    assert joint.set_tasks == (("saliency", "edge"), ("skeleton",))
    _, maps = joint.load(1)
    assert {task: float(values[0, 0] * 255) for task, values in maps.items()} == {
        "saliency": pytest.approx(51),
        "edge": pytest.approx(102),
    }
    assert list(joint.load(3)[1]) == ["skeleton"]


def test_a_picture_with_several_labels_is_decoded_once(files, monkeypatch):
    joint = join({task: files("a", 2, 50 + k) for k, task in enumerate(DENSE_TASKS)})
    opened = []
    decode = MapFiles.decode
    monkeypatch.setattr(
        MapFiles, "decode", lambda self, index: opened.append(index) or decode(self, index)
    )
    assert sorted(joint.load(1)[1]) == sorted(DENSE_TASKS)
    assert opened == [1]


def test_a_task_without_pictures_is_left_out(three):
    three["edge"] = MapFiles(three["edge"].root, [])
    assert join(three).tasks == ("saliency", "skeleton")
    with pytest.raises(ValueError, match="joint pictures need at least one set"):
        join({"edge": three["edge"]})


def test_what_is_no_joint_set(three):
    with pytest.raises(ValueError, match="same pictures, not saliency 3, skeleton 4"):
        JointPictures([{"saliency": three["saliency"], "skeleton": three["skeleton"]}])
    with pytest.raises(ValueError, match="at least one set, and each set at least one task"):
        JointPictures([three, {}])


def test_maps_of_one_picture_must_have_one_size(files, tmp_path):
    joint = join({"saliency": files("a", 2, 51), "edge": files("a", 2, 102)})
    Image.new("L", (11, 8)).save(tmp_path / "a" / "102" / "1.png")  # alone it would do
    with pytest.raises(SizesDifferError, match=r"102/1\.png: 11 by 8 pixels, but .*51/1\.png has"):
        joint.load(1)


def test_choosing_keeps_each_pictures_set(three, files):
    joint = join(three)
    chosen = joint.choose(np.array([0, 2, 6, 7]))
    assert chosen.sizes == (2, 2)
    assert chosen.set_tasks == (("saliency",), ("skeleton",))
    assert [chosen.name(k) for k in range(4)] == [joint.name(k) for k in (0, 2, 6, 7)]
    both = join({"saliency": files("a", 3, 51), "edge": files("a", 3, 102)})
    chosen = both.choose(np.array([2]))
    assert chosen.set_tasks == (("saliency", "edge"),)
    assert chosen.name(0) == both.name(2)
    assert chosen.map_name(0, "edge") == both.map_name(2, "edge")


def test_probing_looks_at_every_map(files, tmp_path):
    joint = join({"saliency": files("a", 2, 51), "edge": files("a", 2, 102)})
    (tmp_path / "a" / "102" / "1.png").unlink()
    joint.probe(0)
    with pytest.raises(DamagedPictureError, match=r"102/1\.png: there is no such file"):
        joint.probe(1)


def test_scenes_are_one_set_with_three_labels(few_scenes):
    data = {task: read_dense(None, task=task) for task in DENSE_TASKS}
    joint = join({task: one.splits["train"] for task, one in data.items()})
    assert joint.set_tasks == (DENSE_TASKS,)
    assert joint.sizes == (6,)
    night = read_dense(None, task="edge", domain="night").splits["train"]
    apart = join({"saliency": data["saliency"].splits["train"], "edge": night})
    assert apart.set_tasks == (("saliency",), ("edge",))


def test_real_packs(pack):
    roots = {"saliency": "saliency-standin", "edge": "BSDS500", "skeleton": "skeleton-standin"}
    splits = {task: read_dense(pack(r), task=task).splits["train"] for task, r in roots.items()}
    joint = join(splits)
    assert joint.sizes == (104, 200, 104)
    _, maps = joint.load(104)
    assert (maps["edge"] == splits["edge"].load(0)[1]).all()
    assert len(joint.decode(104)[1]["edge"].annotations) >= 4


def test_decoding_keeps_what_each_annotator_drew(files, write_edges, tmp_path):
    """The map has the share of those who marked a pixel; their lines are apart beside it."""
    drawn = [np.eye(8, 10, k=k, dtype=bool) for k in range(3)]
    pairs = [(f"a/images/{k}.png", f"a/edges/{k}.mat") for k in range(2)]
    for _, name in pairs:
        write_edges(name, *drawn)
    edges = MapFiles(tmp_path, pairs, read_truth, None)
    joint = join({"saliency": files("a", 2, 51), "edge": edges})
    image, truths = joint.decode(1)
    assert image.size == truths["edge"].size == truths["saliency"].size == (10, 8)
    assert list(truths) == ["saliency", "edge"]
    assert len(truths["edge"].annotations) == 3
    for found, expected in zip(truths["edge"].annotations, drawn, strict=True):
        assert (found == expected).all()
    assert truths["edge"].map == pytest.approx(np.mean(drawn, 0))
    assert len(truths["saliency"].annotations) == 1
    loaded_image, maps = joint.load(1)
    assert loaded_image.tobytes() == image.tobytes()
    assert all((maps[task] == truth.map).all() for task, truth in truths.items())


@pytest.mark.parametrize("folder", ["images", "102"])
def test_what_is_damaged_is_told_when_decoded(files, tmp_path, folder):
    joint = join({"saliency": files("a", 2, 51), "edge": files("a", 2, 102)})
    (tmp_path / "a" / folder / "1.png").write_bytes(b"no picture")
    joint.decode(0)
    with pytest.raises(DamagedPictureError, match=rf"{folder}/1\.png"):
        joint.decode(1)
