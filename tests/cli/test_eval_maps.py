"""``foveal eval --predictions`` as a person types it."""

import json

import numpy as np
import pytest
from PIL import Image

from foveal.cli import main
from foveal.data.dense import read_dense
from foveal.data.scenes import maps

STEMS = ("a", "b", "c", "d")
TASKS = ("saliency", "edge", "skeleton")


def grey(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with ``data`` of three tasks, and ``maps``: the truth, half as bright."""
    monkeypatch.chdir(tmp_path)
    for seed, stem in enumerate(STEMS):
        square = np.zeros((36, 40), bool)
        square[8:28, 10 + seed : 30] = True
        side = np.zeros_like(square)
        side[8:28, 10 + seed] = True
        middle = np.zeros_like(square)
        middle[18, 12:28] = True
        grey(tmp_path / "data" / "images" / "test" / f"{stem}.png", np.zeros((36, 40, 3)))
        for task, truth in zip(TASKS, (square, side, middle), strict=True):
            grey(tmp_path / "data" / task / "test" / f"{stem}.png", 255 * truth)
            grey(tmp_path / "maps" / task / f"{stem}.png", 128 * truth)
    return tmp_path


def scores(capsys, *words):
    status = main(["eval", "--task", "dense", "--workers", "1", "--json", *map(str, words)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out)


def failing(capsys, *words):
    """Return the one sentence that ``foveal eval`` prints before it exits with 2."""
    assert main(["eval", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("foveal: error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("foveal: error: ").rstrip()


FEW = ["--scores.thresholds", "5"]
PREDICTIONS = ["--predictions", "maps", *FEW]


def test_one_set_with_maps_of_several_tasks(folder, capsys):
    words = ["eval", "--task", "dense", "--workers", "1", *PREDICTIONS, "--data.root", "data"]
    assert main(words) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[:3] == [
        f"4 pictures of split test, {task}: folders images/test/ and {task}/test/" for task in TASKS
    ]
    values = dict(line.split() for line in lines[3:])
    assert values["test/saliency/mae"] == "0.0000"  # stretched
    assert values["test/saliency/min_max"] == "1.0000"
    assert values["test/edge/ods"] == values["test/skeleton/ods"] == "1.0000"
    assert len({line.index(" 1.0000") for line in lines if line.endswith(" 1.0000")}) == 1
    assert captured.err.splitlines() == [
        "saliency: each map stretched to span 0 to 1 (min_max true)",
        "edge: 5 thresholds, pixels matched within 0.0075 of the diagonal, ods at threshold 0.167",
        "skeleton: 5 thresholds, pixels matched within 0.01 of the diagonal, ods at threshold "
        "0.167",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["data", "maps"]  # nothing is left


def test_the_tasks_that_have_maps_or_the_one_that_is_named(folder, capsys):
    for task in ("edge", "skeleton"):
        (folder / "maps" / task).rename(folder / task)
    found = scores(capsys, *PREDICTIONS, "--data.root", "data", "--scores.min_max", "false")
    assert {name.split("/")[1] for name in found} == {"saliency"}
    # Half as bright: 127 / 255 is missing in the share of pixels that are true.
    truth = [(20 * (20 - seed)) / (36 * 40) for seed in range(4)]
    assert found["test/saliency/mae"] == pytest.approx(127 / 255 * np.mean(truth), abs=1e-9)
    flags = ["--data.root", "data", "--tasks", "edge"]
    assert scores(capsys, "--predictions", folder / "edge", *FEW, *flags)["test/edge/ods"] == 1
    message = failing(
        capsys, "--predictions", "edge", "--task", "dense", "--data.root", "data", "--json"
    )
    assert message == (
        "edge: has no folder saliency/, edge/ or skeleton/: say with --tasks of which task all its "
        "maps are"
    )


def test_one_task_of_its_own_and_the_others_of_one_set(folder, capsys):
    (folder / "maps" / "saliency").rename(folder / "saliency")
    for path in (folder / "data" / "edge" / "test").iterdir():  # not the truth that is to be taken
        path.unlink()
    grey(folder / "lines" / "images" / "test" / "a.png", np.zeros((36, 40, 3)))
    truth = np.asarray(Image.open(folder / "maps" / "edge" / "a.png"))
    grey(folder / "lines" / "edge" / "test" / "a.png", np.where(truth, 255, 0))
    flags = ["--data.root", "data", "--data.edge.root", "lines"]
    found = scores(capsys, *PREDICTIONS, *flags)
    assert found["test/edge/ods"] == found["test/skeleton/ods"] == 1
    assert not any("saliency" in name for name in found)
    assert scores(capsys, *PREDICTIONS, *flags, "--tasks", "skeleton, edge") == found


def test_sets_of_their_own(folder, capsys):
    flags = ["--data.edge.root", "data", "--data.skeleton.root", "data"]
    flags += ["--data.skeleton.layout", "pairs"]
    found = scores(capsys, *PREDICTIONS, *flags)
    assert list(found) == [
        f"test/{task}/{name}" for task in TASKS[1:] for name in ("ods", "ois", "ap", "r50")
    ]
    flags = ["--data.edge.root", "data", "--counts", "kept.jsonl"]
    first = scores(capsys, *PREDICTIONS, *flags)
    assert len((folder / "kept.jsonl").read_text().splitlines()) == 4
    assert first == {name: value for name, value in found.items() if "edge" in name}


def test_maps_that_are_dark_on_white(folder, capsys):
    for stem in STEMS:
        path = folder / "maps" / "saliency" / f"{stem}.png"
        grey(path, 255 - np.asarray(Image.open(path)))
    flags = [*PREDICTIONS, "--data.saliency.root", "data"]
    assert scores(capsys, *flags, "--inverted")["test/saliency/mae"] == 0
    assert scores(capsys, *flags)["test/saliency/mae"] == 1


def test_the_built_in_scenes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(maps._SCORED, "val", 2)
    pictures = read_dense(None, task="saliency", domain="night").splits["val"]
    assert len(pictures) == 2
    for index in range(2):
        grey(tmp_path / f"{pictures.name(index)}.png", 255 * pictures.truth(index).map)
    words = ["--predictions", tmp_path, "--split", "val"]
    night = ["--data.layout", "scenes", "--data.domain", "night", "--tasks", "saliency"]
    for flags in (night, ["--data.saliency.domain", "night"]):
        assert scores(capsys, *words, *flags)["val/saliency/mae"] == 0
    message = failing(capsys, *words, "--task", "dense", "--tasks", "saliency")
    assert "there is no map of scenes-v1-clean-val[0]" in message


def test_either_a_run_or_maps(folder, capsys):
    sentence = "give either RUN, a run folder, or --predictions DIR, a folder of maps"
    assert failing(capsys) == sentence
    assert failing(capsys, "runs/a", "--predictions", "maps") == f"{sentence}, not both"
    given = "--predictions takes maps of saliency, edges or skeletons: give it with --task dense"
    assert failing(capsys, "--predictions", "maps") == given
    assert failing(capsys, "--predictions", "maps", "--task", "segment") == f"{given}, not segment"


@pytest.mark.parametrize(
    "flag",
    ["--fgsm=0", "--device=cpu", "--data.workers=0", "--data.batch_size=2", "--sliding.flip=true"],
)
def test_flags_of_runs_alone(folder, capsys, flag):
    message = failing(capsys, "--predictions", "maps", "--task", "dense", flag)
    assert message == f"{flag.split('=')[0]} is for a run, and --predictions is none: leave it out"


@pytest.mark.parametrize(
    "flag",
    [
        "--task=dense",
        "--inverted",
        "--workers=1",
        "--counts=x",
        "--scores.min_max",
        "--data.edge.root=x",
        "--data.skeleton.domain=night",
    ],
)
def test_flags_of_maps_alone(capsys, flag):
    message = failing(capsys, "runs/a", flag)
    assert (
        message == f"{flag.split('=')[0]} is for --predictions, and runs/a is a run: leave it out"
    )


def test_all_splits_are_for_maps(folder, capsys):
    assert failing(capsys, "runs/a", "--split", "all") == (
        "--split all is for --predictions: score a run on train, val or test"
    )
    found = scores(capsys, *PREDICTIONS, "--data.saliency.root", "data", "--split", "all")
    assert found["all/saliency/mae"] == 0


def test_wrong_values(folder, capsys):
    words = [*PREDICTIONS, "--task", "dense", "--data.root", "data"]
    assert "unknown task 'edges': did you mean 'edge'" in failing(
        capsys, *words, "--tasks", "saliency,edges"
    )
    assert failing(capsys, *words, "--data.labels", "edge") == (
        "--data.labels is for other data: --tasks says which maps are meant"
    )
    assert failing(capsys, *words, "--data.edge.layout", "pairs", "--tasks", "saliency") == (
        "--data.edge.layout is given, but edge is not among the tasks saliency: leave one of the "
        "two out"
    )
    alone = [*PREDICTIONS, "--task", "dense", "--data.edge.root", "data"]
    assert failing(capsys, *alone, "--tasks", "edge,skeleton") == (
        "--data.skeleton.root is missing: say where its pictures are"
    )
    assert failing(capsys, *words, "--workers", "0") == "--workers must be at least 1, not 0"
    assert "--counts must be a file, and maps is a folder" in failing(
        capsys, *words, "--counts", "maps"
    )
    wrong = failing(capsys, *words, "--scores.thresholds", "many")
    assert "'scores.thresholds' must be int, not 'many'" in wrong
    assert failing(capsys, *words, "--scores.thresholds", "0") == (
        "scores.thresholds must be at least 1, not 0"
    )
    assert "did you mean '--scores.min_max'" in failing(capsys, *words, "--scores.minmax")
    (folder / "maps" / "edge" / "d.png").unlink()
    assert failing(capsys, *words).startswith(
        "maps/edge: there is no map of data/images/test/d.png"
    )
