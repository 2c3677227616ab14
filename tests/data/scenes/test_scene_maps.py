import pickle

import numpy as np
import pytest

from foveal.data.scenes import SceneMaps, Scenes, read_maps
from foveal.data.scenes.drawn import DRAWN


@pytest.mark.parametrize(
    ("task", "attribute"),
    [("saliency", "saliency"), ("edge", "boundaries"), ("skeleton", "skeleton")],
)
def test_maps_are_the_scenes_own(task, attribute):
    found = read_maps(task)
    assert {split: len(part) for split, part in found.parts.items()} == {
        "train": 6000,
        "val": 50,
        "test": 200,
    }
    for split in ("train", "test"):
        part, scenes = found.parts[split], Scenes(split)
        for index in (0, 17):
            image, values = part.load(index)
            expected = getattr(scenes[index], attribute)
            assert (np.asarray(image) == scenes[index].image).all()
            assert values.dtype == np.float32
            assert (values == (expected > 0)).all()
            assert values.any()
            assert part.size(index) == image.size == values.shape[::-1]
            assert part.name(index) == part.map_name(index)
            assert part.name(index) == f"scenes-v1-clean-{split}[{index}]"
            assert [(one == (expected > 0)).all() for one in part.annotations(index)] == [True]
    part.probe(0)
    image, truth, mode = part.decode(17)
    assert (mode, truth.kind) == ("RGB", "1")
    assert (truth.map == values).all()


def test_domains_change_the_picture_alone():
    clean, night = read_maps("edge").parts["val"], read_maps("edge", "night").parts["val"]
    assert (clean.load(3)[1] == night.load(3)[1]).all()
    assert np.asarray(clean.load(3)[0]).mean() > np.asarray(night.load(3)[0]).mean()


def test_a_scene_is_drawn_once_for_all_tasks():
    scenes = Scenes("val", size=64, seed=5)
    SceneMaps(scenes, "saliency").load(2)
    kept = DRAWN.bytes
    SceneMaps(scenes, "edge").load(2)
    SceneMaps(scenes, "skeleton").truth(2)
    assert DRAWN.bytes == kept


def test_what_is_loaded_is_the_callers_own():
    pictures = SceneMaps(Scenes("val", size=64), "skeleton")
    image, values = pictures.load(0)
    values[:] = 9
    assert (pictures.load(0)[1] == (Scenes("val", size=64)[0].skeleton > 0)).all()
    again = pickle.dumps(pictures)
    assert len(again) < 2000
    assert pickle.loads(again).load(0)[0].tobytes() == image.tobytes()
