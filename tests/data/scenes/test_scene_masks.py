import pickle

import numpy as np

from foveal.data.scenes import CLASSES, FINE_CLASSES, SceneMasks, Scenes, read_masks


def test_labels_are_the_scenes_own():
    found = read_masks()
    assert found.classes == ("ground", *CLASSES)
    assert {split: len(part) for split, part in found.parts.items()} == {
        "train": 6000,
        "val": 600,
        "test": 1200,
    }
    for split in ("train", "test"):
        part, scenes = found.parts[split], Scenes(split)
        for index in (0, 17):
            image, labels = part.load(index)
            assert (np.asarray(image) == scenes[index].image).all()
            assert (labels == scenes[index].semantic).all()
            assert part.size(index) == image.size == labels.shape[::-1]
            assert part.name(index) == part.mask_name(index)
            assert part.name(index) == f"scenes-v1-clean-{split}[{index}]"
    part.probe(0)
    assert part.decode(0)[2:] == ("RGB", "L")


def test_fine_labels_tell_each_items_own_class():
    found = read_masks("fine")
    assert found.classes == ("ground", *FINE_CLASSES)
    assert found.colors.shape == (101, 3)
    scenes = Scenes("val")
    for index in range(6):
        _, labels = found.parts["val"].load(index)
        scene = scenes[index]
        for number in np.unique(scene.instances):
            expected = 0 if number == 0 else scene.item_fine[number - 1] + 1
            assert np.unique(labels[scene.instances == number]).tolist() == [expected]
        assert ((labels + 9) // 10 == scene.semantic).all()  # ten details of each class


def test_domains_change_the_picture_alone():
    clean, night = read_masks().parts["val"], read_masks(domain="night").parts["val"]
    assert (clean.load(3)[1] == night.load(3)[1]).all()
    assert np.asarray(clean.load(3)[0]).mean() > np.asarray(night.load(3)[0]).mean()


def test_scenes_are_drawn_once_and_kept_up_to_a_bound(monkeypatch):
    drawn = []
    draw = Scenes.__getitem__
    monkeypatch.setattr(Scenes, "__getitem__", lambda self, k: drawn.append(k) or draw(self, k))
    pictures = SceneMasks(Scenes("val", size=64), fine=False, cache_bytes=2 * 64 * 64 * 4)
    for _ in range(2):
        for index in range(3):
            pictures.load(index)
    assert drawn == [0, 1, 2, 2]
    image, labels = pictures.load(0)
    labels[:] = 9  # what was handed out is the caller's own
    assert (pictures.load(0)[1] == draw(pictures.scenes, 0).semantic).all()
    again = pickle.dumps(pictures)
    assert len(again) < 2000
    assert pickle.loads(again).load(0)[0].tobytes() == image.tobytes()
