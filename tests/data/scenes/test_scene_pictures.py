"""Scenes as the pictures of a classification run."""

import pickle
import shutil
import time

import numpy as np
import pytest
import torch

from foveal.data import fashion, read_classification
from foveal.data.check import check_classification
from foveal.data.loading import TransformedPictures, make_loader
from foveal.data.sampling import BatchSampler
from foveal.data.scenes import CLASSES, FINE_CLASSES, ScenePictures, Scenes, photographs
from foveal.data.transforms import Preprocess


@pytest.mark.parametrize(
    ("labels", "multi_label", "classes", "shape"),
    [
        (None, False, CLASSES, (1200,)),
        ("fine", False, FINE_CLASSES, (1200,)),
        ("coarse", True, CLASSES, (1200, 10)),
        ("fine", True, FINE_CLASSES, (1200, 100)),
    ],
)
def test_classes_of_all_kinds(labels, multi_label, classes, shape):
    data = read_classification(None, "scenes", labels=labels, multi_label=multi_label)
    assert (data.layout, data.root, data.image_size) == ("scenes", None, 128)
    assert data.classes == classes
    assert {split: len(part) for split, part in data.splits.items()} == {
        "train": 6000,
        "val": 600,
        "test": 1200,
    }
    pictures = data.splits["test"]
    assert pictures.targets.shape == shape
    assert pictures.targets.dtype == (np.float32 if multi_label else np.int64)
    for index in range(8):
        scene = Scenes("test")[index]
        found = pictures.targets[index]
        if multi_label:
            shown = scene.item_fine if labels == "fine" else scene.item_categories
            assert {*np.flatnonzero(found)} == {*shown}
        else:
            assert found == (scene.fine if labels == "fine" else scene.category)
        assert np.array_equal(np.asarray(pictures.load(index)), scene.image)


def test_reading_draws_nothing(monkeypatch):
    monkeypatch.setattr(Scenes, "__getitem__", None)
    photographs.rows("train", 0)
    start = time.process_time()
    read_classification(None, "scenes", multi_label=True)
    assert time.process_time() - start < 1


def test_domains():
    night = read_classification(None, "scenes", domain="night")
    assert night.origins["test"] == "built-in scenes, version 1, night"
    assert night.splits["test"].name(17) == "scenes-v1-night-test[17]"
    expected = Scenes("test", domain="night")[2].image
    assert np.array_equal(np.asarray(night.splits["test"].load(2)), expected)
    with pytest.raises(ValueError, match=r"unknown domain 'nihgt': did you mean 'night'\?"):
        read_classification(None, "scenes", domain="nihgt")
    with pytest.raises(ValueError, match=r"layout has one domain: leave out data\.domain 'night'"):
        read_classification(None, "fashion", domain="night")
    with pytest.raises(ValueError, match=r"unknown labels 'corse': did you mean 'coarse'\?"):
        check_classification(None, "scenes", labels="corse")
    with pytest.raises(ValueError, match="'scenes' is built in and reads no folder"):
        read_classification("somewhere", "scenes")


def test_names_have_version_domain_split_and_index():
    pictures = read_classification(None, "scenes").splits["train"]
    assert pictures.name(17) == "scenes-v1-clean-train[17]"
    with pytest.raises(IndexError):
        pictures.name(6000)
    pictures.probe(0)
    assert pictures.decode(0)[1] == "RGB"


def test_drawn_pictures_are_kept_up_to_a_bound(monkeypatch):
    drawn = []
    draw = Scenes.__getitem__
    monkeypatch.setattr(Scenes, "__getitem__", lambda self, k: drawn.append(k) or draw(self, k))
    pictures = ScenePictures(Scenes("val", size=64), np.zeros(600, int), 3 * 64 * 64 * 3)
    for _ in range(2):
        for index in range(5):
            pictures.load(index)
    assert drawn == [0, 1, 2, 3, 4, 3, 4]
    kept = pictures._drawn
    assert sum(pixels.nbytes for pixels in kept._arrays.values()) <= kept.cache_bytes


def test_what_is_loaded_cannot_spoil_what_is_kept():
    pictures = ScenePictures(Scenes("val", size=64), np.zeros(600, int))
    first = pictures.load(0)
    before = first.tobytes()
    first.paste((0, 0, 0), (0, 0, 64, 64))
    assert pictures.load(0).tobytes() == before


def test_pickles_are_small_and_draw_the_same():
    pictures = read_classification(None, "scenes").splits["val"]
    picture = pictures.load(3)
    stored = pickle.dumps(pictures)
    assert len(stored) < 10_000
    assert pickle.loads(stored).load(3).tobytes() == picture.tobytes()


def test_worker_processes_draw_the_same():
    pictures = ScenePictures(Scenes("val", domain="noisy", size=64), np.zeros(600, int))
    data = TransformedPictures(pictures, Preprocess(64))

    def batches(workers):
        sampler = BatchSampler(600, 3, shuffle=True, seed=1)
        loader = iter(make_loader(data, sampler, workers=workers))
        return [next(loader)[0] for _ in range(3)]

    for alone, helped in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone, helped)


def test_a_missing_file_is_reported_when_data_are_read(tmp_path, monkeypatch):
    folder = tmp_path / "fashion"
    shutil.copytree(fashion.FOLDER, folder)
    (folder / "train-images-idx3-ubyte.gz").unlink()
    read = fashion.read
    monkeypatch.setattr(fashion, "read", lambda: read(folder))
    photographs._parts.cache_clear()
    try:
        with pytest.raises(ValueError, match="train-images-idx3-ubyte: there is no such file"):
            read_classification(None, "scenes")
    finally:
        photographs._parts.cache_clear()
