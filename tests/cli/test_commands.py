"""The commands as a person types them, on a tiny data set."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from foveal.cli import main
from foveal.data.scenes.drawn import DRAWN
from foveal.data.scenes.plan import SPLITS, plan

TINY = ["--model", "test_efficientnet", "--data.batch_size", "6", "--data.workers", "0"]
TINY += ["--device", "cpu", "--threads", "1", "--epochs", "1", "--data.image_size", "24"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return two classes of pictures in one folder, named as people name folders."""
    root = tmp_path_factory.mktemp("my pictures")
    rng = np.random.default_rng(0)
    for name, level in (("Äpfel", 60), ("two words", 190)):
        (root / name).mkdir()
        for i in range(12):
            array = np.clip(rng.normal(level, 30, (20, 26, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(array).save(root / name / f"picture {i}.JPG")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first run"
    status = main(["train", "classify", "--data.root", str(folder), *TINY, "--out", str(out)])
    assert status == 0
    return out


def failing(capsys, *argv):
    """Return the one sentence that a command prints before it exits with 2."""
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("foveal: error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def test_train_says_what_it_found_and_leaves_a_run(run, folder, capsys):
    assert (run / "metrics.json").exists()
    config = (run / "config.yaml").read_text()
    assert config.startswith("task: classify")
    assert "layout: imagefolder" in config


def test_eval_says_which_split_it_used(run, capsys):
    assert main(["eval", str(run), "--split", "test"]) == 0
    out = capsys.readouterr().out
    assert "pictures of split test:" in out
    assert "seed 0" in out
    assert main(["eval", str(run), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    metrics = json.loads((run / "metrics.json").read_text())
    assert scores == {k: v for k, v in metrics.items() if k.startswith("test/")}


def test_eval_attacks(run, capsys):
    assert main(["eval", str(run), "--json", "--fgsm", "0"]) == 0
    assert "test/accuracy_fgsm" not in json.loads(capsys.readouterr().out)
    assert main(["eval", str(run), "--json", "--fgsm", "1"]) == 0  # white where it was black
    scores = json.loads(capsys.readouterr().out)
    assert 0 <= scores["test/accuracy_fgsm"] <= scores["test/accuracy"]
    assert "fgsm must lie in [0, 1], not 8.0" in failing(capsys, "eval", run, "--fgsm", "8")


def test_predict_writes_json_csv_and_pictures(run, folder, tmp_path, capsys):
    single = folder / "Äpfel" / "picture 0.JPG"
    status = main(["predict", str(run), str(single), str(folder), "--out", str(tmp_path / "o")])
    assert status == 0
    result = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert len(result["predictions"]) == 25
    assert result["damaged"] == []
    first = result["predictions"][0]
    assert first["path"] == str(single)
    assert sum(entry["probability"] for entry in first["top"]) == pytest.approx(1)
    assert first["label"] == first["top"][0]["label"]
    with (tmp_path / "o" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [p["path"] for p in result["predictions"]]
    with Image.open(tmp_path / "o" / "predictions_001.png") as sheet:
        assert sheet.size[0] > 100


def test_predict_names_a_damaged_picture_and_goes_on(run, folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes((folder / "Äpfel" / "picture 1.JPG").read_bytes())
    (tmp_path / "in" / "b.jpg").write_bytes(b"")
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "o")]) == 2
    captured = capsys.readouterr()
    assert "b.jpg" in captured.err
    result = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert len(result["predictions"]) == 1
    assert len(result["damaged"]) == 1


@pytest.mark.parametrize("name", ["safetensors", "torch"])
def test_export_proves_equality(run, tmp_path, capsys, name):
    assert main(["export", str(run), "--format", name, "--out", str(tmp_path / "net")]) == 0
    assert "deviation" in capsys.readouterr().out


def test_models_and_data_check(folder, capsys):
    assert main(["models", "mobilenetv2_100_coordinate"]) == 0
    assert "3.951 M" in capsys.readouterr().out
    assert main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "imagefolder" in out
    assert "two words" in out


@pytest.fixture
def few_scenes(monkeypatch):
    """Make the built-in scenes few, so that all can be drawn."""
    for split in SPLITS:
        monkeypatch.setitem(SPLITS, split, 100)
    # The other scenes are not kept, or later tests would get them.
    monkeypatch.setattr(DRAWN, "_arrays", {})
    monkeypatch.setattr(DRAWN, "capacity", 0)
    plan.cache_clear()
    yield
    plan.cache_clear()


def test_scenes_are_checked_and_shown(few_scenes, tmp_path, capsys):
    sheet = tmp_path / "new" / "sheet.png"
    flags = ["scenes", "--domain", "noisy", "--labels", "fine", "--out", str(sheet)]
    assert main(["data", "check", *flags]) == 0
    out = capsys.readouterr().out
    assert "layout scenes, 100 classes" in out
    assert "Ankle boot, hem" in out
    assert "modes: RGB 300\nno problems" in out
    assert out.endswith(f"wrote {sheet}\n")
    with Image.open(sheet) as image:
        assert image.size[0] > 500
    sheet.unlink()
    assert main(["data", "show", "scenes", "--count", "2", "--out", str(sheet)]) == 0
    assert capsys.readouterr().out == f"wrote {sheet}\n"
    with Image.open(sheet) as image:
        assert image.size[1] > 2 * image.size[0]  # two columns with all labels below


def test_any_folder_is_shown(folder, tmp_path, capsys):
    sheet = tmp_path / "sheet.PNG"
    flags = [str(folder), "--split", "test", "--count", "3", "--out", str(sheet)]
    assert main(["data", "show", *flags]) == 0
    assert sheet.exists()
    capsys.readouterr()
    assert "'Äpfel.jpg'" in failing(capsys, "data", "show", folder, "--out", "Äpfel.jpg")
    assert "one domain" in failing(capsys, "data", "show", folder, "--domain", "night")
    assert "leave out data.labels" in failing(capsys, "data", "check", folder, "--labels", "fine")


@pytest.fixture
def masked(tmp_path):
    """Return a folder of six pictures beside their masks."""
    for name in ("images", "masks"):
        (tmp_path / "masked" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(6):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "masked" / "images" / f"{k}.png")
        Image.fromarray(pixels[..., 0] // 100).save(tmp_path / "masked" / "masks" / f"{k}.png")
    return tmp_path / "masked"


def test_pictures_with_masks_are_checked_and_shown(masked, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["data", "check", str(masked), "--out", str(sheet)]) == 0
    out = capsys.readouterr().out
    assert "layout pairs, 3 classes" in out
    assert "share of labelled pixels, and pictures that show a class" in out
    assert sheet.exists()
    sheet.unlink()
    assert main(["data", "show", str(masked), "--split", "val", "--out", str(sheet)]) == 0
    assert sheet.exists()
    capsys.readouterr()
    Image.new("L", (30, 21)).save(masked / "masks" / "3.png")
    assert main(["data", "check", str(masked)]) == 2
    assert "sizes that differ: 1" in capsys.readouterr().out
    (masked / "masks" / "4.png").unlink()
    assert "there is no mask 4 in" in failing(capsys, "data", "show", masked, "--out", sheet)
    assert "leave out data.labels" in failing(capsys, "data", "check", masked, "--labels", "fine")
    assert "is read for its masks: leave out --multi_label" in failing(
        capsys, "data", "check", masked, "--task", "segment", "--multi_label"
    )
    alone = failing(capsys, "data", "check", masked / "masks")
    assert "these pictures look like label masks" in alone


def test_classes_in_masks_are_checked_and_shown(masked, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["data", "check", str(masked), "--multi_label", "--out", str(sheet)]) == 0
    out = capsys.readouterr().out
    assert "layout pairs, 3 classes" in out
    assert "pictures of a class" in out
    assert sheet.exists()


def test_pictures_with_maps_are_checked_and_shown(masked, tmp_path, capsys):
    sheet, flags = tmp_path / "sheet.png", ["--task", "dense", "--labels", "edge"]
    for path in (masked / "masks").iterdir():
        with Image.open(path) as mask:
            pixels = np.asarray(mask)
        Image.fromarray((pixels == 1).astype(np.uint8)).save(path)
    assert main(["data", "check", str(masked), *flags, "--out", str(sheet)]) == 0
    out = capsys.readouterr().out
    assert "layout pairs, edge maps" in out
    assert "share of positive pixels, and pictures without any" in out
    assert sheet.exists()
    sheet.unlink()
    assert main(["data", "show", str(masked), *flags, "--split", "val", "--out", str(sheet)]) == 0
    assert sheet.exists()
    capsys.readouterr()
    assert "say which maps are meant (--labels" in failing(
        capsys, "data", "check", masked, "--task", "dense"
    )
    assert "unknown task 'edgy': did you mean 'edge'?" in failing(
        capsys, "data", "check", masked, "--task", "dense", "--labels", "edgy"
    )
    assert "is read for its maps: leave out --multi_label" in failing(
        capsys, "data", "check", masked, *flags, "--multi_label"
    )
    Image.new("L", (30, 25)).save(masked / "masks" / "3.png")
    assert main(["data", "check", str(masked), *flags]) == 2
    assert "sizes that differ: 1" in capsys.readouterr().out


def test_a_layout_of_one_kind_of_maps_needs_no_flags(masked, tmp_path, capsys):
    (masked / "masks").rename(masked / "ground_truth_mask")
    masked.rename(tmp_path / "ECSSD")
    assert main(["data", "check", str(tmp_path / "ECSSD")]) == 0
    assert "layout saliency, saliency maps" in capsys.readouterr().out


def test_scenes_are_checked_and_shown_with_their_masks(few_scenes, tmp_path, capsys):
    assert main(["data", "check", "scenes", "--task", "segment"]) == 0
    out = capsys.readouterr().out
    assert "layout scenes, 11 classes" in out
    assert "modes of masks: L 300\nno problems" in out
    sheet = tmp_path / "sheet.png"
    flags = ["--task", "segment", "--labels", "fine", "--count", "2", "--out", str(sheet)]
    assert main(["data", "show", "scenes", *flags]) == 0
    assert sheet.stat().st_size > 1000
    assert "is not of `foveal train segment`" in failing(
        capsys, "data", "check", "fashion", "--task", "segment"
    )


def test_scenes_are_checked_and_shown_with_their_maps(few_scenes, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    flags = ["--task", "dense", "--labels", "edge", "--domain", "night"]
    assert main(["data", "check", "scenes", *flags]) == 0
    assert "layout scenes, edge maps" in capsys.readouterr().out
    assert main(["data", "show", "scenes", *flags, "--count", "2", "--out", str(sheet)]) == 0
    assert sheet.stat().st_size > 1000


def test_a_run_on_scenes_is_scored_on_another_domain(few_scenes, tmp_path, capsys):
    out = str(tmp_path / "run")
    flags = [*TINY, "--data.layout", "scenes", "--max_steps", "1", "--out", out]
    assert main(["train", "classify", *flags]) == 0
    assert "built-in scenes, version 1, clean" in capsys.readouterr().out
    scores = {}
    for domain in ("clean", "night"):
        assert main(["eval", out, "--data.domain", domain]) == 0
        text = capsys.readouterr().out
        assert f"100 pictures of split test: built-in scenes, version 1, {domain}" in text
        scores[domain] = text.split("nll")[1]
    assert scores["clean"] != scores["night"]
    assert "did you mean 'night'" in failing(capsys, "eval", out, "--data.domain", "nigth")
    flags = ["--data.layout", "scenes", "--data.domain", "night", "--print_config"]
    assert main(["train", "classify", *flags]) == 0
    assert "domain: night" in capsys.readouterr().out


def test_wrong_commands_name_the_nearest(capsys):
    assert "did you mean 'train'" in failing(capsys, "trian")
    assert "did you mean 'classify'" in failing(capsys, "train", "clasify")
    assert "did you mean '--epochs'" in failing(capsys, "train", "classify", "--epoch", "3")
    assert "--out" in failing(capsys, "train", "classify", "--resume")
    assert "did you mean '--split'" in failing(capsys, "eval", "x", "--splt", "val")


def test_wrong_runs_and_pictures(run, capsys, tmp_path):
    assert "did you mean" in failing(capsys, "eval", run.parent / "first_run")
    assert "not a run folder" in failing(capsys, "predict", tmp_path, "x.png", "--out", tmp_path)
    missing = tmp_path / "x.png"
    assert str(missing) in failing(capsys, "predict", run, missing, "--out", tmp_path)
    message = failing(capsys, "export", run, "--format", "onxx", "--out", tmp_path / "x")
    assert "did you mean 'onnx'" in message


def test_wrong_data(capsys, tmp_path, folder, run):
    def train(root, *more):
        flags = ["--data.root", root, *TINY, "--out", tmp_path / "out", *more]
        return failing(capsys, "train", "classify", *flags)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in train(empty)
    assert "did you mean" in train(str(folder) + "s")
    one = tmp_path / "one" / "cat"
    one.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(one / "a.png")
    assert "class" in train(one.parent)
    voc = tmp_path / "VOC2012"
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / part).mkdir(parents=True)
    (voc / "Annotations" / "1.xml").write_text("<annotation></annotation>")
    Image.new("RGB", (8, 8)).save(voc / "JPEGImages" / "1.jpg")
    assert "did you mean" in train(voc)
    assert "already holds a run" in failing(
        capsys, "train", "classify", "--data.root", folder, *TINY, "--out", run
    )


def test_a_class_missing_from_val_is_named(capsys, tmp_path):
    for part, names in (("train", ("cat", "dog", "emu")), ("val", ("cat", "dog"))):
        for name in names:
            (tmp_path / "d" / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "d" / part / name / "a.png")
    message = failing(
        capsys, "train", "classify", "--data.root", tmp_path / "d", *TINY, "--out", tmp_path / "o"
    )
    assert "emu" in message
    assert "val" in message


def test_a_checkpoint_that_does_not_fit_says_what_differs(run, folder, capsys, tmp_path):
    flags = ["--data.root", folder, *TINY, "--out", tmp_path / "o"]
    flags += ["--checkpoint", run / "best.safetensors", "--model", "test_resnet"]
    message = failing(capsys, "train", "classify", *flags)
    assert "does not fit ResNet" in message


def test_a_checkpoint_of_the_same_network_is_the_start(run, folder, tmp_path, capsys):
    flags = ["--data.root", str(folder), *TINY, "--out", str(tmp_path / "o"), "--lr", "1e-12"]
    flags += ["--checkpoint", str(run / "best.safetensors"), "--warmup_epochs", "0"]
    assert main(["train", "classify", *flags]) == 0


def test_resume_by_out_alone_takes_the_runs_own_settings(run, capsys):
    assert main(["train", "classify", "--out", str(run), "--resume"]) == 0
    assert "this run is finished" in capsys.readouterr().out
    message = failing(capsys, "train", "classify", "--out", run, "--resume", "--lr", "0.5")
    assert "has another lr" in message


def test_the_configs_file_repeats_the_run(run, tmp_path):
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(again)]) == 0
    first, second = (json.loads((p / "metrics.json").read_text()) for p in (run, again))
    assert first == second


def test_whole_pictures_are_looked_at_as_flags_say(tmp_path, capsys):
    out = str(tmp_path / "run")
    flags = ["--model", "lraspp", "--backbone", "test_efficientnet", "--data.image_size", "64"]
    flags += ["--model_args.output_stride", "8", "--data.batch_size", "2", "--max_steps", "1"]
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(6):
        labels = np.zeros((40, 50), np.uint8)
        labels[10:30, 5 * index :] = 1
        pixels = rng.integers(0, 90, (40, 50, 3)) + 120 * labels[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(labels).save(root / "masks" / f"{index}.png")
    flags += ["--data.root", str(root), "--data.workers", "0", "--threads", "1", "--out", out]
    assert main(["train", "segment", *flags]) == 0
    sliding = ["--sliding.window", "32", "--sliding.scales", "0.5,1", "--sliding.flip", "false"]
    assert main(["eval", out, *sliding]) == 0
    pictures = [str(root / "images"), "--out", str(tmp_path / "found")]
    assert main(["predict", out, *pictures, *sliding]) == 0
    assert len(list((tmp_path / "found" / "masks").iterdir())) == 6
    capsys.readouterr()
    assert "did you mean '--sliding.scales'" in failing(capsys, "eval", out, "--sliding.scale", "1")
    for command in (["eval", out], ["predict", out, *pictures]):
        wrong = failing(capsys, *command, "--sliding.window", "x")
        assert "config key 'sliding.window' must be" in wrong
        wrong = failing(capsys, *command, "--sliding.window", "32", "--sliding.stride", "40")
        assert "stride" in wrong
