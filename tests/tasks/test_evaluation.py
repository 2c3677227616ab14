"""Scores of dense runs, of a network that reads its maps off the pictures' colours."""

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal.cli import main
from foveal.config import ClassifyConfig, DenseDataConfig, MapSetConfig
from foveal.data.transforms import Preprocess
from foveal.tasks.run import WEIGHTS, build_model, save_weights, write_config

TASKS = ("saliency", "edge", "skeleton")


def inverted(values):
    return 255 - values


@pytest.fixture
def run(make_dense_run, mapped):
    return make_dense_run(root=mapped)


@pytest.fixture
def classify_run(tmp_path):
    """Return a run of another task."""
    folder = tmp_path / "classify"
    folder.mkdir()
    config = ClassifyConfig(model="test_efficientnet")
    write_config(folder, config)
    preprocess = Preprocess(image_size=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    save_weights(folder / WEIGHTS, build_model(config, "ab"), config, "ab", preprocess)
    return folder


def tasks_scored(evaluation):
    names = [name.split("/")[1] for name in evaluation.scores if name.count("/") == 2]
    return tuple(task for task in TASKS if task in names)


def failing(capsys, *words):
    """Return the one sentence that ``foveal eval`` prints before it exits with 2."""
    assert main(["eval", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("foveal: error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("foveal: error: ").rstrip()


def test_a_run_on_its_own_pictures(run):
    found = foveal.evaluate(run)
    assert tasks_scored(found) == TASKS
    assert found.pictures == 3
    assert found.scores["test/saliency/mae"] == pytest.approx(0, abs=1e-6)  # stretched
    assert found.scores["test/saliency/max_f"] == pytest.approx(1)
    assert found.scores["test/edge/ods"] == pytest.approx(1)
    assert found.scores["test/skeleton/ods"] == pytest.approx(1)


def test_how_it_looks_and_how_maps_are_scored(run):
    plain = foveal.evaluate(run, tasks=["saliency"], scores={"min_max": False})
    assert tasks_scored(plain) == ("saliency",)
    # The network is certain to 1 / (1 + e^-6), of both values.
    assert plain.scores["test/saliency/mae"] == pytest.approx(1 / (1 + np.exp(6)), rel=1e-3)
    coarse = foveal.evaluate(run, tasks=["saliency"], inference={"saliency_scales": (0.1,)})
    assert coarse.scores["test/saliency/mae"] > 0.01


def test_another_set_that_has_some_of_the_tasks(run, tmp_path, paint_maps):
    other = paint_maps(tmp_path / "other", tasks=("saliency", "edge"), truth=inverted)
    found = foveal.evaluate(run, root=other, split="val")
    assert tasks_scored(found) == ("saliency", "edge")
    assert found.pictures == 1
    assert found.scores["val/saliency/mae"] == pytest.approx(1, abs=1e-6)
    some = foveal.evaluate(run, root=other, tasks=["edge"])
    assert tasks_scored(some) == ("edge",)


def test_a_folder_whose_name_does_not_tell_the_task(run, tmp_path, paint_maps):
    """``masks`` may be of anything: the task has to be said."""
    root = paint_maps(tmp_path / "other", tasks=("saliency",))
    for part in ("train", "val", "test"):
        (root / part / "saliency").rename(root / part / "masks")
    with pytest.raises(ValueError, match="say what its maps are of"):
        foveal.evaluate(run, root=root, layout="pairs")
    found = foveal.evaluate(run, root=root, layout="pairs", tasks=["saliency"])
    assert found.scores["test/saliency/max_f"] == pytest.approx(1)


def test_a_set_for_each_task(run, tmp_path, mapped, paint_maps):
    other = paint_maps(tmp_path / "other", tasks=("saliency",), truth=inverted)
    found = foveal.evaluate(run, sets={"saliency": other})
    assert tasks_scored(found) == ("saliency",)
    assert found.scores["test/saliency/mae"] == pytest.approx(1, abs=1e-6)
    sets = {"saliency": other, "edge": {"root": mapped, "layout": "pairs"}}
    found = foveal.evaluate(run, sets=sets)
    assert tasks_scored(found) == ("saliency", "edge")
    assert found.scores["test/edge/ods"] == pytest.approx(1)
    assert found.pictures == 6
    both = foveal.evaluate(run, root=mapped, sets={"saliency": other})
    assert tasks_scored(both) == TASKS
    assert both.scores["test/saliency/mae"] == pytest.approx(1, abs=1e-6)


def test_other_pictures_replace_the_sets_of_the_run(make_dense_run, mapped):
    sets = {task: MapSetConfig(root="gone") for task in TASKS}
    run = make_dense_run(data=DenseDataConfig(workers=0, batch_size=2, **sets))
    assert tasks_scored(foveal.evaluate(run, root=mapped)) == TASKS
    assert tasks_scored(foveal.evaluate(run, sets={"edge": mapped})) == ("edge",)


def test_maps_that_a_run_wrote_score_as_the_run_does(run, mapped, tmp_path, capsys):
    foveal.predict(run, mapped / "test" / "images").save(tmp_path / "maps")
    found = foveal.evaluate(run).scores
    words = ["eval", "--predictions", tmp_path / "maps", "--task", "dense", "--data.root", mapped]
    assert main([*map(str, words), "--workers", "1", "--scores.thresholds", "3"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[3:])
    for name in ("test/saliency/s_measure", "test/edge/ods", "test/skeleton/ois"):
        assert float(printed[name]) == pytest.approx(found[name], abs=1e-3)


def test_the_command(run, mapped, capsys):
    flags = ["--data.edge.root", mapped, "--data.saliency.root", mapped]
    flags += ["--data.edge.layout", "pairs", "--scores.thresholds", "1", "--inference.tile", "16"]
    assert main([str(word) for word in ["eval", run, *flags]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 pictures of split test: ")
    assert any(line.split() == ["test/edge/ods", "1.0000"] for line in lines)
    assert not any("skeleton" in line for line in lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.skeleton.root", "MAPPED"], "the network has learned saliency and edge only"),
        (["--tasks", "skeleton"], "has learned saliency and edge only, not skeleton"),
        (["--tasks", "edges"], "unknown task 'edges': did you mean 'edge'?"),
        (["--data.edge.layout", "pairs"], "data.edge.root is missing"),
        (["--data.layout", "pairs"], "layout 'pairs' needs data.root"),
        (["--data.labels", "edge"], "data.labels is for other tasks: --tasks says"),
        (["--data.edge.root", "MAPPED", "--data.domain", "night"], "data.domain is of tasks"),
        (
            ["--data.edge.root", "MAPPED", "--data.root", "MAPPED", "--tasks", "edge"],
            "data.root is of tasks without pictures of their own, and edge has some",
        ),
        (["--data.edge.root", "MAPPED", "--tasks", "saliency"], "leave one of the two out"),
        (["--scores.thresholds", "0"], "scores.thresholds must be at least 1"),
        (["--inference.edge_scales", "0"], "inference.edge_scales must be numbers above 0"),
        (["--inference.bits", "8"], "unknown flag '--inference.bits'"),
        (["--fgsm", "0.1"], "fgsm is of classify runs, and"),
        (["--sliding.window", "8"], "sliding (windows, scales and mirror images) is of segment"),
    ],
)
def test_wrong_flags_are_one_sentence(make_dense_run, mapped, capsys, flags, message):
    run = make_dense_run(tasks=("saliency", "edge"), root=mapped)
    flags = [str(mapped) if flag == "MAPPED" else flag for flag in flags]
    assert message in failing(capsys, run, *flags)


def test_pictures_without_a_task_that_was_learned(
    make_dense_run, mapped, tmp_path, capsys, paint_maps
):
    other = paint_maps(tmp_path / "other", tasks=("skeleton",))
    run = make_dense_run(tasks=("saliency", "edge"), root=mapped)
    message = failing(capsys, run, "--data.root", other)
    assert message == (
        f"{other}: has maps of skeleton, and the network has learned saliency and edge only"
    )


def test_wrong_sets_are_one_sentence(run, mapped):
    with pytest.raises(ValueError, match="sets must be of at least one of saliency, edge"):
        foveal.evaluate(run, sets={})
    with pytest.raises(ValueError, match="unknown task 'egde': did you mean 'edge'"):
        foveal.evaluate(run, sets={"egde": mapped})
    with pytest.raises(ValueError, match=r"unknown config key 'data\.edge\.ratio'"):
        foveal.evaluate(run, sets={"edge": {"root": mapped, "ratio": 2.0}})
    with pytest.raises(TypeError, match="the set of edge must be a path or a mapping, not 3"):
        foveal.evaluate(run, sets={"edge": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["edge"]}, "tasks are of dense runs, and .* is of classify"),
        ({"sets": {"edge": "x"}}, r"sets \(of one task each\) are of dense runs, and .* classify"),
        ({"inference": {"tile": 8}}, r"inference \(.*\) is of dense runs, and .* is of classify"),
        ({"scores": {"thresholds": 8}}, r"scores \(.*\) is of dense runs, and .* is of classify"),
    ],
)
def test_what_is_of_dense_runs_alone(classify_run, arguments, message):
    with pytest.raises(ValueError, match=message):
        foveal.evaluate(classify_run, **arguments)
    if arguments.keys() & {"tasks", "inference"}:
        with pytest.raises(ValueError, match=message):
            foveal.predict(classify_run, Image.new("RGB", (8, 8)), **arguments)


def test_flags_of_dense_runs_alone(classify_run, tmp_path, capsys):
    sets = ["--data.edge.root", tmp_path]
    for flags in (["--tasks", "edge"], ["--inference.tile", "8"], ["--scores.min_max"], sets):
        assert "of dense runs, and" in failing(capsys, classify_run, *flags)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for flags in (["--tasks", "edge"], ["--inference.bits", "16"]):
        words = ["predict", classify_run, tmp_path / "a.png", "--out", tmp_path / "out", *flags]
        assert main([str(word) for word in words]) == 2
        assert "of dense runs, and" in capsys.readouterr().err


def test_a_damaged_picture_is_left_out(run, tmp_path, paint_maps):
    other = paint_maps(tmp_path / "other")
    Image.new("L", (3, 3)).save(other / "test" / "edge" / "test_0.png")
    found = foveal.evaluate(run, root=other, on_error="skip")
    assert found.pictures == 2
    assert len(found.left_out) == 1
