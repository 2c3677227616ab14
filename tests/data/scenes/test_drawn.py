import numpy as np

from foveal.data.scenes import Scenes
from foveal.data.scenes.drawn import DrawnScenes


def _image(scene):
    return scene.image


def test_arrays_are_drawn_once_and_kept_up_to_a_bound(monkeypatch):
    drawn = []
    draw = Scenes.__getitem__
    monkeypatch.setattr(Scenes, "__getitem__", lambda self, k: drawn.append(k) or draw(self, k))
    kept = DrawnScenes(capacity=3 * 64 * 64 * 3)
    for _ in range(2):
        for index in range(5):
            picture = kept.get(Scenes("val", size=64), index, "image", _image)
            assert np.array_equal(picture, draw(Scenes("val", size=64), index).image)
    assert drawn == [0, 1, 2, 3, 4, 3, 4]
    assert kept.bytes == kept.capacity
    kept.get(Scenes("val", size=64, domain="night"), 0, "image", _image)
    assert drawn[-1] == 0  # another picture


def test_arrays_of_a_scene_are_told_apart_by_name():
    kept, scenes = DrawnScenes(capacity=2**20), Scenes("val", size=64)
    image = kept.get(scenes, 0, "image", _image)
    labels = kept.get(scenes, 0, "labels", lambda scene: scene.semantic)
    assert image.shape == (64, 64, 3)
    assert np.array_equal(labels, scenes[0].semantic)
    assert kept.get(scenes, -600, "labels", _image) is labels
