"""Predictions of a network whose answers can be worked out by hand: a colour for each task."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import foveal
from foveal.cli import main
from foveal.config import DenseDataConfig, MapSetConfig
from foveal.data.prediction_maps import read_prediction_map
from foveal.tasks.run import WEIGHTS, read_config, save_weights

TASKS = ("saliency", "edge", "skeleton")


def write_picture(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def certain(values):
    """Return what the network says of a colour in [0, 1]."""
    return 1 / (1 + np.exp(6 - 12 * np.asarray(values, np.float64)))


@pytest.fixture
def run(make_dense_run):
    return make_dense_run()


@pytest.fixture
def ramp():
    """Return a picture, uint8 [12, 20, 3]: red grows to the right, green downwards, no blue."""
    colors = np.zeros((12, 20, 3), np.uint8)
    colors[..., 0] = np.linspace(0, 255, 20).round()
    colors[..., 1] = np.linspace(0, 204, 12).round()[:, None]
    return colors


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 255), (16, 1 / 65535)])
def test_maps_at_the_pictures_own_size(run, ramp, bits, step):
    (item,) = foveal.predict(run, Image.fromarray(ramp), inference={"bits": bits, "stretch": False})
    assert item.tasks == TASKS
    for channel, task in enumerate(TASKS):
        found, expected = item.map(task), certain(ramp[..., channel] / 255)
        assert (found.dtype, found.shape) == (np.float32, (12, 20))
        assert abs(found - expected).max() <= step / 2 + 1e-6
        assert item.shares[task] == (expected >= 0.5).mean()
    assert str(item) == "(picture): saliency 50%, edge 42%, skeleton 0%"
    with pytest.raises(ValueError, match="unknown task 'edges': did you mean 'edge'"):
        item.map("edges")


def test_lines_are_stretched_unless_told_otherwise(run, ramp):
    (item,) = foveal.predict(run, Image.fromarray(ramp), tasks=["saliency", "edge"])
    assert (item.map("edge").min(), item.map("edge").max()) == (0, 1)
    assert item.map("saliency").min() > 0


def test_any_subset_of_tasks_equals_all_of_them(run, ramp):
    image = Image.fromarray(ramp)
    (everything,) = foveal.predict(run, image)
    (some,) = foveal.predict(run, image, tasks=("skeleton", "saliency"))
    assert some.tasks == ("saliency", "skeleton")
    for task in some.tasks:
        assert some.pngs[task] == everything.pngs[task]
    assert str(some) == "(picture): saliency 50%, skeleton 0%"


def test_what_is_written(run, ramp, tmp_path):
    first, second = tmp_path / "pictures" / "a.jpeg", tmp_path / "pictures" / "deep" / "A.png"
    for path, colors in ((first, ramp), (second, ramp[:, ::-1])):
        write_picture(path, colors)
    (tmp_path / "pictures" / "broken.png").write_bytes(b"nothing")
    found = foveal.predict(run, tmp_path / "pictures", on_error="skip", inference={"bits": 16})
    out = tmp_path / "out"
    written = found.save(out)
    folders = [*TASKS, "overlays", "panels"]
    names = ["predictions.json", "predictions.csv", *folders, "legend.png"]
    assert [path.name for path in written] == names
    assert all(path.exists() for path in written)
    assert {path.name for path in out.iterdir()} == set(names)
    for folder in folders:
        assert {path.name for path in (out / folder).iterdir()} == {"a.png", "A_00002.png"}
    for task in TASKS:
        values = read_prediction_map(out / task / "A_00002.png")  # as foveal eval does
        assert (values.dtype, values.shape) == (np.uint16, (12, 20))
        assert (values.astype(np.float32) / np.float32(65535) == found[1].map(task)).all()
    report = json.loads((out / "predictions.json").read_text())
    assert len(report["damaged"]) == 1
    row = report["predictions"][1]
    assert row["path"] == str(second)
    assert (row["edge"], row["panel"]) == ("edge/A_00002.png", "panels/A_00002.png")
    assert row["saliency_share"] == 0.5
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["overlay"] for r in rows] == ["overlays/a.png", "overlays/A_00002.png"]
    assert [r["edge_share"] for r in rows] == [f"{found[i].shares['edge']:.6f}" for i in (0, 1)]


def test_tasks_that_were_not_asked_for_leave_nothing(run, ramp, tmp_path):
    foveal.predict(run, Image.fromarray(ramp), tasks=["edge"]).save(tmp_path)
    written = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert written == {"run", "edge", "overlays", "panels"}
    assert [path.name for path in (tmp_path / "edge").iterdir()] == ["picture_00001.png"]
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["saliency"] == row["saliency_share"] == ""
    assert row["edge"] == "edge/picture_00001.png"


def test_a_picture_that_went_away_has_its_maps_alone(run, ramp, tmp_path):
    path = tmp_path / "a.png"
    write_picture(path, ramp)
    found = foveal.predict(run, path)
    path.unlink()
    found.save(tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert (row["overlay"], row["panel"], row["edge"]) == ("", "", "edge/a.png")
    assert (tmp_path / "out" / "edge" / "a.png").is_file()


def test_pixels_without_an_answer(run, ramp, tmp_path):
    model = foveal.load(run)
    with torch.no_grad():
        model.scale.fill_(torch.nan)
    save_weights(run / WEIGHTS, model, read_config(run), TASKS, model.preprocess)
    found = foveal.predict(run, Image.fromarray(ramp), tasks=["edge"])
    assert (found[0].map("edge") == 0).all()
    assert str(found[0]) == "(picture): edge not a number"
    found.save(tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert row["edge_share"] is None


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_every_kind(run, ramp, tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(ramp).convert(mode).save(path)
    found = foveal.predict(run, path)
    colors = np.asarray(Image.open(path).convert("RGB")) / 255
    assert abs(found[0].map("saliency") - certain(colors[..., 0])).max() <= 0.5 / 255 + 1e-6
    found.save(tmp_path / "out")


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_pictures_of_one_pixel_and_of_one_row(run, tmp_path, size):
    inference = {"edge_scales": (0.5, 2.0), "tile": 8}
    found = foveal.predict(run, Image.new("RGB", size, "red"), inference=inference)
    assert found[0].map("edge").shape == size[::-1]
    assert (found[0].map("saliency") == np.float32(round(255 * certain(1)) / 255)).all()
    found.save(tmp_path / "out")
    with Image.open(tmp_path / "out" / "overlays" / "picture_00001.png") as overlay:
        assert overlay.size == size


def test_pictures_with_a_path_are_not_kept_in_memory(run, ramp, tmp_path):
    write_picture(tmp_path / "a.png", ramp)
    by_path, by_object = foveal.predict(run, [tmp_path / "a.png", Image.fromarray(ramp)])
    assert by_path._picture is None
    assert by_object._picture is not None


def test_the_command(run, ramp, tmp_path, capsys):
    write_picture(tmp_path / "a.png", ramp)
    out = tmp_path / "out"
    flags = ["--tasks", "edge, saliency", "--inference.bits", "16", "--inference.tile", "8"]
    flags += ["--inference.edge_scales", "0.5,1,1.5,2", "--inference.stretch", "false"]
    assert main(["predict", str(run), str(tmp_path / "a.png"), "--out", str(out), *flags]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"{tmp_path}/a.png: saliency 50%, edge \d+%\n", printed)
    assert f"wrote {out / 'saliency'}" in printed
    with Image.open(out / "edge" / "a.png") as stored:
        assert stored.mode.startswith("I")  # 16 bits
    assert not (out / "skeleton").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks", "edges"], "unknown task 'edges': did you mean 'edge'?"),
        (["--tasks", ""], "unknown task ''"),
        (["--tasks", "skeleton"], "has learned saliency and edge only, not skeleton"),
        (["--inference.bits", "12"], "inference.bits must be 8 or 16, not 12"),
        (["--inference.edge_scales", "0"], "inference.edge_scales must be numbers above 0"),
        (["--inference.edge_scales", "[]"], "inference.edge_scales must be numbers above 0"),
        (["--inference.edge_scales", "x"], "config key 'inference.edge_scales[0]' must be float"),
        (["--inference.tile", "-1"], "inference.tile must be at least 0, not -1"),
        (["--inference.scales", "1"], "did you mean '--inference."),
        (["--sliding.flip", "false"], "is of segment runs, and"),
    ],
)
def test_wrong_flags_are_one_sentence(make_dense_run, ramp, tmp_path, capsys, flags, message):
    run = make_dense_run(tasks=("saliency", "edge"))
    write_picture(tmp_path / "a.png", ramp)
    words = ["predict", run, tmp_path / "a.png", "--out", tmp_path / "out", *flags]
    assert main([str(word) for word in words]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("foveal: error: ")
    assert complaint.count("\n") == 1
    assert message in complaint


def test_wrong_arguments_are_one_sentence(run):
    image = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="tasks must be at least one of saliency, edge, skeleton"):
        foveal.predict(run, image, tasks=[])
    with pytest.raises(TypeError, match="tasks must be several names"):
        foveal.predict(run, image, tasks="edge")
    with pytest.raises(ValueError, match=r"unknown config key 'inference\.tiles'"):
        foveal.predict(run, image, inference={"tiles": 3})


def test_a_run_with_a_set_for_each_task_predicts_some(make_dense_run, ramp):
    """Where the pictures of its other tasks were is of no account."""
    sets = {task: MapSetConfig(root="gone") for task in TASKS}
    run = make_dense_run(data=DenseDataConfig(**sets))
    (item,) = foveal.predict(run, Image.fromarray(ramp), tasks=["edge"])
    assert item.tasks == ("edge",)


def test_the_loaded_network_tells_its_tasks(make_dense_run, ramp):
    model = foveal.load(make_dense_run(tasks=("edge", "skeleton")))
    assert model.classes == ("edge", "skeleton")
    x = model.preprocess(Image.fromarray(ramp))[None]
    assert list(model(x)) == ["edge", "skeleton"]
    assert list(model(x, ["edge"])) == ["edge"]


@pytest.mark.parametrize("format", ["safetensors", "torch", "onnx"])
def test_a_run_is_exported_and_proved_equal(make_dense_run, tmp_path, format):
    run = make_dense_run(tasks=("saliency", "edge"))
    if format == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    report = foveal.export(run, format, tmp_path / "net", image_size=16)
    assert report.checks
    assert max(check.deviation for check in report.checks) < 1e-5
    if format == "onnx":
        session = onnxruntime.InferenceSession(str(report.path))
        assert [output.name for output in session.get_outputs()] == ["saliency", "edge"]
        assert session.get_modelmeta().custom_metadata_map["task"] == "dense"
