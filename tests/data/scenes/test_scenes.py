"""Whole scenes: the same bytes everywhere, labels that agree with each other."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from foveal.data.scenes import CLASSES, DOMAINS, FINE_CLASSES, VERSION, Scene, Scenes

DIGESTS = {
    "clean": "24cb2d8f2aff6f7c",
    "sketch": "11ff5bcdcbb06596",
    "night": "5e1a4f3dcc5a7134",
    "noisy": "998c14fd6b4f0251",
}

LABELS = ("semantic", "instances", "boxes", "saliency", "boundaries", "skeleton")


def digest(domain: str) -> str:
    """Return a hash of pictures and labels of a few scenes."""
    found = hashlib.blake2b(digest_size=8)
    for split, size in (("train", None), ("val", 64), ("test", 128)):
        scenes = Scenes(split, domain=domain, size=size)
        for index in (0, 17, 101, 202, 303, 404, 505, 590):
            scene = scenes[index]
            for name in ("image", *LABELS):
                found.update(np.ascontiguousarray(getattr(scene, name)).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("domain", DOMAINS)
def test_bytes_are_those_of_this_version(domain):
    assert VERSION == 1
    assert digest(domain) == DIGESTS[domain]


def test_bytes_do_not_depend_on_the_processor():
    from numpy._core import _multiarray_umath

    found = [name for name, there in _multiarray_umath.__cpu_features__.items() if there]
    optional = [name for name in _multiarray_umath.__cpu_dispatch__ if name in found]
    if not optional:
        pytest.skip("NumPy uses nothing of this processor that can be switched off")
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", "from test_scenes import *\nprint(*map(digest, DOMAINS))"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": path, "NPY_DISABLE_CPU_FEATURES": " ".join(optional)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == [DIGESTS[domain] for domain in DOMAINS], done.stderr


def test_scenes_do_not_depend_on_each_other_or_on_order():
    scenes = Scenes("val", domain="night")
    forwards = [scenes[k].image.tobytes() for k in range(5)]
    backwards = [scenes[k].image.tobytes() for k in reversed(range(5))]
    assert forwards == backwards[::-1]
    scene = scenes[3]
    scene.skeleton, scene.saliency  # noqa: B018  (asked for before the picture)
    assert scene.image.tobytes() == forwards[3]
    assert scenes[-1].image.tobytes() == scenes[599].image.tobytes()


def test_seed_split_and_index_make_other_scenes():
    seen = {
        Scenes(split, seed=seed, size=64)[index].image.tobytes()
        for split in ("train", "val")
        for seed in (0, 1)
        for index in (0, 1)
    }
    assert len(seen) == 8


@pytest.fixture(scope="module")
def some() -> list[Scene]:
    return [Scenes(split)[index] for split in ("train", "val", "test") for index in range(25)]


def test_shapes_and_types(some):
    for scene in some:
        assert 96 <= scene.height <= 160
        assert 96 <= scene.width <= 160
        assert scene.image.shape == (scene.height, scene.width, 3)
        for name in ("image", "semantic", "instances", "saliency", "boundaries", "skeleton"):
            array = getattr(scene, name)
            assert array.dtype == np.uint8
            assert array.shape[:2] == (scene.height, scene.width)
        for name in ("saliency", "boundaries", "skeleton"):
            assert {*np.unique(getattr(scene, name))} <= {0, 1}
        assert scene.boxes.dtype == np.float32
        assert scene.present.dtype == bool
        assert scene.image.std() > 8
    assert {scene.height for scene in some} != {scene.width for scene in some}
    assert Scenes("val", size=77)[0].image.shape == (77, 77, 3)


def test_labels_agree_with_the_masks(some):
    for scene in some:
        count = len(scene.item_fine)
        assert {*np.unique(scene.instances)} == {*range(count + 1)}
        categories = scene.item_fine // 10
        assert (scene.item_categories == categories).all()
        assert (scene.category, scene.fine) == (categories[0], scene.item_fine[0])
        for k in range(count):
            mask = scene.instances == k + 1
            assert (scene.semantic[mask] == categories[k] + 1).all()
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert scene.boxes[k].tolist() == box
        assert ((scene.semantic == 0) == (scene.instances == 0)).all()
        assert {*np.flatnonzero(scene.present)} == {*(np.unique(scene.semantic)[1:] - 1)}
        areas = np.bincount(scene.instances.ravel())[1:]
        assert areas.argmax() == 0


def test_saliency_is_of_whole_items_the_largest_always(some):
    left_out = 0
    for scene in some:
        for k in range(len(scene.item_fine)):
            values = np.unique(scene.saliency[scene.instances == k + 1])
            assert len(values) == 1
            left_out += values[0] == 0
        assert scene.saliency[scene.instances == 1].all()
        assert not scene.saliency[scene.instances == 0].any()
    assert left_out > 10


def test_boundaries_lie_on_the_borders_of_items(some):
    for scene in some:
        padded = np.pad(scene.instances, 1, mode="edge")
        around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        on_border = np.any([neighbour != scene.instances for neighbour in around], axis=0)
        assert (on_border[scene.boundaries > 0]).all()
        assert (scene.instances[scene.boundaries > 0] > 0).all()
        # no border without a line: where two pixels differ, one of them is marked
        marked = scene.boundaries
        for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            differ = scene.instances[a] != scene.instances[b]
            assert (marked[a] | marked[b])[differ].all()


def test_skeletons_are_thin_and_hold_together_as_the_items_do(some):
    eight = np.ones((3, 3))
    for scene in some:
        assert (scene.instances[scene.skeleton > 0] > 0).all()
        for k in range(len(scene.item_fine)):
            mask = scene.instances == k + 1
            lines = mask & (scene.skeleton > 0)
            assert ndimage.label(lines, eight)[1] == ndimage.label(mask, eight)[1]
            assert not ndimage.binary_erosion(lines, eight).any()


def test_all_domains_show_the_same_scene():
    for index in range(6):
        of = {domain: Scenes("test", domain=domain)[index] for domain in DOMAINS}
        for domain in DOMAINS:
            for name in LABELS:
                assert (getattr(of[domain], name) == getattr(of["clean"], name)).all()
            assert (of[domain].item_fine == of["clean"].item_fine).all()
        images = [scene.image.astype(int) for scene in of.values()]
        for k, image in enumerate(images):
            for other in images[:k]:
                assert np.abs(image - other).mean() > 12


def test_classes_are_known_without_drawing():
    scenes = Scenes("test", seed=5)
    assert [scenes[k].fine for k in range(30)] == scenes.fine[:30].tolist()
    assert [scenes[k].category for k in range(30)] == scenes.categories[:30].tolist()
    assert [scenes[k].present.tolist() for k in range(30)] == scenes.present[:30].tolist()
    assert np.bincount(scenes.categories).tolist() == [120] * 10


def test_colour_does_not_tell_the_class():
    """The mean colours of main items and of grounds are alike in all classes."""
    scenes = Scenes("train", size=64)
    colours = {k: [] for k in range(10)}
    for index in range(400):
        scene = scenes[index]
        item = scene.image[scene.instances == 1].mean(axis=0)
        ground = scene.image[scene.instances == 0].mean(axis=0)
        colours[scene.category].append([*item, *ground])
    means = np.array([np.mean(colours[k], axis=0) for k in range(10)])
    spread = np.std(np.concatenate(list(colours.values())), axis=0)
    # of a mean over some 40 pictures: 0.16 spreads; four times that is out of the question
    assert (np.abs(means - means.mean(axis=0)) < 0.65 * spread).all()


def test_what_cannot_be_asked_for():
    scenes = Scenes("val")
    assert len(scenes) == 600
    for index in (600, -601):
        with pytest.raises(IndexError, match=f"there is no scene {index} among 600"):
            scenes[index]
    with pytest.raises(ValueError, match=r"unknown split 'vall': did you mean 'val'\?"):
        Scenes("vall")
    with pytest.raises(ValueError, match=r"unknown domain 'nigth': did you mean 'night'\?"):
        Scenes(domain="nigth")
    with pytest.raises(ValueError, match="seed of scenes must be 0 or more, not -1"):
        Scenes(seed=-1)
    with pytest.raises(ValueError, match="drawn 64 to 512 pixels wide, not 32"):
        Scenes(size=32)


def test_names():
    scene = Scenes("val", domain="sketch")[7]
    assert repr(scene) == f"<scene scenes-v{VERSION}-sketch-val[7]>"
    assert FINE_CLASSES[scene.fine].startswith(CLASSES[scene.category])
    assert sum(1 for _ in Scenes("val")) == 600
