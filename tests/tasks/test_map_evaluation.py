import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import gaussian_filter

from foveal.data.dense import read_dense
from foveal.data.pictures import DamagedPictureError
from foveal.metrics import EDGES, SKELETONS, BoundaryScores, SaliencyScores
from foveal.tasks import boundary_evaluation, map_evaluation
from foveal.tasks.map_evaluation import evaluate_maps

STEMS = ("a", "b", "c")
SIZES = ((40, 50), (44, 40), (36, 36))  # rows and columns


def store(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def bits(values):
    """Return values in [0, 1] as a map of 8 bits."""
    return np.rint(255 * np.asarray(values, float)).astype(np.uint8)


def soft(mask, seed):
    """Return a made-up prediction of a mask, of 8 bits."""
    noise = np.random.default_rng(seed).random(mask.shape)
    return bits(0.7 * gaussian_filter(mask.astype(float), 1) + 0.2 * noise + 0.05)


def disc(shape, seed):
    rows, columns = np.indices(shape)
    return (rows - shape[0] / 2 - seed) ** 2 + (columns - shape[1] / 2) ** 2 < 10**2


def lines(shape, seed, count=1):
    """Return what annotators drew, bool [A, H, W], each moved against the others."""
    drawn = np.zeros((count, *shape), bool)
    for annotator in range(count):
        drawn[annotator, 8 + annotator : 30, 10 + seed] = True
        drawn[annotator, 15, 10 + 3 * annotator : 32] = True
    return drawn


@pytest.fixture
def pictures(tmp_path):
    """Return a function that stores test pictures with maps, and reads them."""

    def make(task, truths, name="data"):
        root = tmp_path / name
        for stem, truth in zip(STEMS, truths, strict=False):
            store(root / "images" / "test" / f"{stem}.png", np.zeros((*truth.shape, 3), np.uint8))
            store(root / task / "test" / f"{stem}.png", truth)
        return read_dense(root, "pairs", task=task)

    return make


@pytest.fixture
def annotated(tmp_path):
    """Return a function that stores test pictures as BSDS500 does, and reads them."""

    def make(truths):
        data = tmp_path / "BSDS500" / "data"
        for stem, drawn in zip(STEMS, truths, strict=False):
            for split in ("train", "val", "test"):
                path = data / "images" / split / f"{split if split != 'test' else ''}{stem}.png"
                store(path, np.zeros((*drawn.shape[1:], 3), np.uint8))
                cells = np.empty((1, len(drawn)), object)
                for annotator, mask in enumerate(drawn):
                    cells[0, annotator] = {"Boundaries": mask.astype(np.uint8)}
                matrix = data / "groundTruth" / split / f"{path.stem}.mat"
                matrix.parent.mkdir(parents=True, exist_ok=True)
                savemat(matrix, {"groundTruth": cells})
        return read_dense(data.parent)

    return make


def saliency_scores(maps, truths, **how):
    scores = SaliencyScores(**how)
    for index, (values, truth) in enumerate(zip(maps, truths, strict=True)):
        scores.update(torch.tensor(index), torch.tensor(values), torch.tensor(truth))
    return {f"test/saliency/{name}": value for name, value in scores.compute().items()}


def boundary_scores(task, maps, truths, protocol):
    scores = BoundaryScores(protocol)
    for index, (values, drawn) in enumerate(zip(maps, truths, strict=True)):
        scores.update(torch.tensor(index), torch.tensor(values), torch.tensor(drawn))
    return {f"test/{task}/{name}": value for name, value in scores.compute().items()}


def evaluate(folder, data, **how):
    return evaluate_maps(folder, data, **{"thresholds": 9, "workers": 1, **how})


# Saliency


@pytest.mark.parametrize("min_max", [True, False])
def test_saliency_has_the_scores_of_the_metric(pictures, tmp_path, min_max):
    masks = [disc(shape, seed) for seed, shape in enumerate(SIZES)]
    maps = [soft(mask, seed) for seed, mask in enumerate(masks)]
    data = pictures("saliency", [bits(mask) for mask in masks])
    for stem, values in zip(STEMS, maps, strict=True):
        store(tmp_path / "maps" / f"{stem}.png", values)
    found = evaluate(tmp_path / "maps", {"saliency": data}, min_max=min_max)
    assert found.scores == saliency_scores(maps, masks, min_max=min_max)
    assert found.scores["test/saliency/min_max"] == min_max
    assert found.pictures == {"saliency": 3}
    assert found.origins == {"saliency": "folders images/test/ and saliency/test/"}
    assert f"min_max {str(min_max).lower()}" in found.remarks[-1]


def test_truth_as_prediction_and_a_shifted_one(pictures, tmp_path):
    truth = np.zeros((20, 30), bool)
    truth[5:15, 10:20] = True
    data = {"saliency": pictures("saliency", [bits(truth)])}
    store(tmp_path / "same" / "a.png", bits(truth))
    scores = evaluate(tmp_path / "same", data).scores
    for name in ("max_f", "s_measure", "weighted_f", "max_e", "adaptive_f"):
        assert scores[f"test/saliency/{name}"] == pytest.approx(1, abs=2e-3), name  # E: n - 1
    assert scores["test/saliency/mae"] == 0
    # Two columns further to the right: 2 x 20 of 600 pixels are wrong, 8 of 10 columns meet.
    store(tmp_path / "shifted" / "a.png", bits(np.roll(truth, 2, axis=1)))
    scores = evaluate(tmp_path / "shifted", data).scores
    assert scores["test/saliency/mae"] == pytest.approx(40 / 600, abs=1e-12)
    assert scores["test/saliency/max_f"] == pytest.approx(0.8, abs=1e-12)


def test_the_same_map_in_other_files(pictures, tmp_path):
    masks = [disc(shape, seed) for seed, shape in enumerate(SIZES)]
    maps = [soft(mask, seed) for seed, mask in enumerate(masks)]
    data = {"saliency": pictures("saliency", [bits(mask) for mask in masks])}
    expected = saliency_scores(maps, masks)

    def store_all(folder, *files):
        for stem, (suffix, values) in zip(STEMS, files, strict=True):
            store(tmp_path / folder / f"{stem}{suffix}", values)

    wide = maps[0].astype(np.uint16) * 257
    fractions = (maps[1] / 255).astype(">f8")
    store_all("mixed", (".png", wide), (".npy", fractions), (".npy", maps[2][None, None]))
    assert evaluate(tmp_path / "mixed", data).scores == pytest.approx(expected, abs=1e-12)
    store_all("dark", (".png", 65535 - wide), (".npy", 1 - maps[1] / 255), (".tif", 255 - maps[2]))
    dark = evaluate(tmp_path / "dark", data, inverted=True)
    assert dark.scores == pytest.approx(expected, abs=1e-12)
    assert evaluate(tmp_path / "dark", data).scores["test/saliency/max_f"] < 0.6


def test_maps_without_two_sides_are_scored_and_named(pictures, tmp_path):
    masks = [np.zeros((20, 30), bool), disc((30, 30), 0), disc((30, 32), 1)]
    data = {"saliency": pictures("saliency", [bits(mask) for mask in masks])}
    maps = [soft(masks[0], 0), np.full((30, 30), 51, np.uint8), masks[2].astype(np.uint8)]
    for stem, values in zip(STEMS, maps, strict=True):
        store(tmp_path / "maps" / f"{stem}.png", values)
    found = evaluate(tmp_path / "maps", data)
    assert found.scores == saliency_scores(maps, masks)
    assert [remark.rsplit(", such as ")[0] for remark in found.remarks[:3]] == [
        "saliency: maps of pictures in whose truth not one pixel is true: 1",
        "saliency: maps with one value everywhere: 1",
        "saliency: maps of two neighbouring levels, where 255 (of 16 bits 65535) is certain: 1",
    ]
    names = [Path(remark.rsplit(", such as ")[1]).name for remark in found.remarks[:3]]
    assert names == ["a.png", "b.png", "c.png"]


def test_a_truth_that_is_a_pixel_larger_than_its_picture(pictures, tmp_path):
    truth = np.zeros((30, 41), bool)
    truth[:, 20:] = True
    data = {"saliency": pictures("saliency", [bits(truth)])}
    store(tmp_path / "data" / "images" / "test" / "a.png", np.zeros((30, 40, 3), np.uint8))
    ramp = np.tile(np.linspace(0, 1, 40), (30, 1))
    for folder, values in (("bytes", bits(ramp)), ("wide", np.rint(65535 * ramp).astype("u2"))):
        store(tmp_path / folder / "a.png", values)
        found = evaluate(tmp_path / folder, data)
        # A ramp stays one: from 0 to 1 over 41 columns, to half a step.
        expected = np.abs(np.linspace(0, 1, 41) - truth[0]).mean()
        assert found.scores["test/saliency/mae"] == pytest.approx(expected, abs=0.01)
        assert "scaled to a truth that is a pixel off: 1, such as" in found.remarks[0]
    store(tmp_path / "large" / "a.png", bits(np.zeros((31, 42))))  # not the picture's size
    with pytest.raises(ValueError, match=r"a.png: prediction and truth must have the same size"):
        evaluate(tmp_path / "large", data)
    store(tmp_path / "data" / "images" / "test" / "a.png", np.zeros((60, 80, 3), np.uint8))
    store(tmp_path / "twice" / "a.png", bits(np.zeros((60, 80))))  # it is, but the truth is not
    with pytest.raises(ValueError, match=r"a.png: prediction and truth must have the same size"):
        evaluate(tmp_path / "twice", data)


# Edges and skeletons


def test_edges_of_several_annotators(annotated, tmp_path):
    truths = [lines(shape, seed, count=3) for seed, shape in enumerate(SIZES)]
    truths[1][2] = False  # drew nothing
    maps = [soft(drawn.any(0), seed) for seed, drawn in enumerate(truths)]
    data = annotated(truths)
    for stem, values in zip(STEMS, maps, strict=True):
        store(tmp_path / "maps" / "edge" / f"{stem}.png", values)
    found = evaluate(tmp_path / "maps", {"edge": data})
    expected = boundary_scores("edge", maps, truths, replace(EDGES, thresholds=9))
    assert found.scores == expected
    assert 0.3 < found.scores["test/edge/ods"] < 1
    assert found.remarks[-1].startswith("edge: 9 thresholds, pixels matched within 0.0075 of")
    other = evaluate(tmp_path / "maps", {"edge": data}, thresholds=4).scores
    assert other == boundary_scores("edge", maps, truths, replace(EDGES, thresholds=4))


def test_skeletons_have_their_own_protocol(pictures, tmp_path):
    truths = [lines(shape, seed)[0] for seed, shape in enumerate(SIZES)]
    maps = [soft(drawn, seed) // 2 for seed, drawn in enumerate(truths)]  # they are stretched
    data = {"skeleton": pictures("skeleton", [bits(drawn) for drawn in truths])}
    for stem, values in zip(STEMS, maps, strict=True):
        store(tmp_path / "maps" / f"{stem}.png", values)
    protocol = replace(SKELETONS, thresholds=9)
    expected = boundary_scores("skeleton", maps, truths, protocol)
    assert evaluate(tmp_path / "maps", data).scores == expected
    assert expected != boundary_scores("skeleton", maps, truths, replace(EDGES, thresholds=9))


def test_boundaries_of_nobody(annotated, tmp_path):
    truths = [np.zeros((2, *shape), bool) for shape in SIZES]
    data = {"edge": annotated(truths)}
    for seed, (stem, shape) in enumerate(zip(STEMS, SIZES, strict=True)):
        store(tmp_path / "maps" / f"{stem}.png", soft(np.zeros(shape), seed))
    found = evaluate(tmp_path / "maps", data)
    assert list(found.scores) == [f"test/edge/{name}" for name in ("ods", "ois", "ap", "r50")]
    assert all(math.isnan(value) for value in found.scores.values())
    assert "edge: maps of pictures in whose truth not one pixel is true: 3" in found.remarks[0]
    assert found.remarks[-1].endswith("no scores, for not one pixel is true")


def test_stopped_counts_go_on(annotated, tmp_path, monkeypatch):
    truths = [lines(shape, seed, count=2) for seed, shape in enumerate(SIZES)]
    data = {"edge": annotated(truths)}
    for seed, (stem, drawn) in enumerate(zip(STEMS, truths, strict=True)):
        store(tmp_path / "maps" / f"{stem}.png", soft(drawn.any(0), seed))
    counts = tmp_path / "counts.jsonl"
    whole = evaluate(tmp_path / "maps", data)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "a.png",
        "b.png",
        "c.png",
    ]

    def stop(what, done, total):
        if (what, done) == ("edge", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "maps", data, counts_file=counts, progress=stop)
    assert len(counts.read_text().splitlines()) == 2
    again = evaluate(tmp_path / "maps", data, counts_file=counts)
    assert again.scores == whole.scores
    assert again.remarks[-1] == f"edge: 1 picture counted and added to {counts}"
    monkeypatch.setattr(boundary_evaluation, "count_boundaries", None)  # nothing left to count
    assert evaluate(tmp_path / "maps", data, counts_file=counts).scores == whole.scores
    with pytest.raises(ValueError, match=r"a.png: is no file of counts"):
        evaluate(tmp_path / "maps", data, counts_file=tmp_path / "maps" / "a.png")


# Several splits and tasks


def test_all_pictures_of_a_set_whatever_its_splits(tmp_path):
    drawn = {f"{index:02}": lines((40, 40), index)[0] for index in range(10)}
    maps = {stem: soft(mask, int(stem)) for stem, mask in drawn.items()}
    for stem, mask in drawn.items():
        store(tmp_path / "data" / "images" / f"{stem}.png", np.zeros((40, 40, 3), np.uint8))
        store(tmp_path / "data" / "edge" / f"{stem}.png", bits(mask))
        store(tmp_path / "maps" / f"{stem}.png", maps[stem])
    data = {"edge": read_dense(tmp_path / "data", task="edge")}
    found = evaluate(tmp_path / "maps", data, split="all")
    expected = boundary_scores("edge", maps.values(), drawn.values(), replace(EDGES, thresholds=9))
    assert found.scores == {name.replace("test", "all"): value for name, value in expected.items()}
    assert found.pictures == {"edge": 10}
    assert found.origins == {"edge": "train 8, val 1, test 1"}
    assert evaluate(tmp_path / "maps", data).pictures == {"edge": 1}


def test_equal_splits_count_once(pictures, tmp_path):
    masks = [disc(shape, seed) for seed, shape in enumerate(SIZES)]
    data = pictures("saliency", [bits(mask) for mask in masks])  # val: the test pictures
    for seed, (stem, mask) in enumerate(zip(STEMS, masks, strict=True)):
        store(tmp_path / "maps" / f"{stem}.png", soft(mask, seed))
    found = evaluate(tmp_path / "maps", {"saliency": data}, split="all")
    assert found.pictures == {"saliency": 3}
    assert set(found.scores.values()) == set(
        evaluate(tmp_path / "maps", {"saliency": data}).scores.values()
    )


def test_several_tasks_each_in_its_folder(pictures, tmp_path):
    masks = [disc(shape, seed) for seed, shape in enumerate(SIZES)]
    drawn = [lines(shape, seed)[0] for seed, shape in enumerate(SIZES)]
    data = {  # in another order than the tasks have
        "skeleton": pictures("skeleton", [bits(one) for one in drawn], "of skeletons"),
        "saliency": pictures("saliency", [bits(mask) for mask in masks], "of objects"),
    }
    for seed, stem in enumerate(STEMS):
        store(tmp_path / "maps" / "saliency" / f"{stem}.png", soft(masks[seed], seed))
        store(tmp_path / "maps" / "skeleton" / f"{stem}.png", soft(drawn[seed], seed))
    steps = []
    found = evaluate(tmp_path / "maps", data, progress=lambda *step: steps.append(step))
    alone = {task: evaluate(tmp_path / "maps" / task, {task: data[task]}).scores for task in data}
    assert list(found.scores.items()) == [*alone["saliency"].items(), *alone["skeleton"].items()]
    assert found.pictures == {"saliency": 3, "skeleton": 3}
    assert steps == [
        *(("checking", done, 6) for done in range(1, 7)),
        *(("saliency", done, 3) for done in range(1, 4)),
        *(("skeleton", done, 3) for done in range(4)),
    ]
    (tmp_path / "maps" / "skeleton").rename(tmp_path / "maps" / "skeletons")
    with pytest.raises(ValueError, match="there is no folder skeleton/ in it"):
        evaluate(tmp_path / "maps", data)


def test_all_files_are_checked_before_anything_is_scored(pictures, tmp_path, monkeypatch):
    masks = [disc(shape, seed) for seed, shape in enumerate(SIZES)]
    drawn = [lines(shape, seed)[0] for seed, shape in enumerate(SIZES)]
    data = {
        "saliency": pictures("saliency", [bits(mask) for mask in masks], "of objects"),
        "edge": pictures("edge", [bits(one) for one in drawn], "of edges"),
    }
    maps = tmp_path / "maps"
    for seed, stem in enumerate(STEMS):
        store(maps / "saliency" / f"{stem}.png", soft(masks[seed], seed))
        store(maps / "edge" / f"{stem}.png", soft(drawn[seed], seed))
    monkeypatch.setattr(map_evaluation, "SaliencyScores", None)
    monkeypatch.setattr(boundary_evaluation, "count_boundaries", None)

    def sentence(path, kind=ValueError):
        with pytest.raises(kind) as error:
            evaluate(maps, data)
        assert str(error.value).startswith(f"{path}: ")
        return str(error.value).removeprefix(f"{path}: ")

    last = maps / "edge" / "c.png"
    store(last, soft(drawn[2], 0)[:, 1:])
    assert sentence(last) == (
        "the prediction has 36 rows and 35 columns, its truth 36 and 36; resize the prediction to "
        "the truth"
    )
    store(last, np.zeros((36, 36, 3), np.uint8) + np.arange(3, dtype=np.uint8))
    assert sentence(last, DamagedPictureError) == "has colours (mode RGB), where a map is grey"
    last.unlink()
    assert sentence(maps / "edge").startswith("there is no map of ")
    store(last.with_suffix(".npy"), np.full((36, 36), 3.0))
    assert "lies in [3, 3], not in [0, 1]" in sentence(last.with_suffix(".npy"))
    store(last.with_suffix(".npy"), np.zeros((36, 36), np.int64))
    assert "is int64 [36, 36], but a map is uint8" in sentence(last.with_suffix(".npy"))
    store(maps / "saliency" / "b.png", soft(masks[0], 0))
    assert "[40, 50] and [44, 40]; resize" in sentence(maps / "saliency" / "b.png")
    (maps / "saliency" / "b.png").unlink()
    store(maps / "saliency" / "b.npy", np.full((44, 40), np.nan))
    assert "values that are not finite" in sentence(maps / "saliency" / "b.npy")


def test_wrong_arguments(pictures, tmp_path):
    data = pictures("saliency", [bits(disc((30, 30), 0))])
    with pytest.raises(ValueError, match=r"there is no task to score: it must be one of saliency,"):
        evaluate(tmp_path, {})
    with pytest.raises(ValueError, match=r"unknown task 'edges': did you mean 'edge'\?"):
        evaluate(tmp_path, {"edges": data})
    with pytest.raises(ValueError, match="the split must be train, val, test or all, not 'tset'"):
        evaluate(tmp_path, {"saliency": data}, split="tset")
    with pytest.raises(ValueError, match=r"nowhere: there is no such folder"):
        evaluate(tmp_path / "nowhere", {"saliency": data})
    with pytest.raises(ValueError, match=r"data: there are no train pictures to score \(none: "):
        evaluate(tmp_path, {"saliency": data}, split="train")
    with pytest.raises(ValueError, match="thresholds must be at least 1, not 0"):
        evaluate(tmp_path, {"saliency": data}, thresholds=0)
