"""A run from Python: what it learns, what it leaves behind, what it refuses."""

import csv
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import foveal
from foveal.config import from_dict


@pytest.fixture(scope="module")
def finished(colors, tmp_path_factory):
    """Return a run that learns three colours."""
    config = foveal.ClassifyConfig(
        data=foveal.config.DataConfig(root=str(colors), image_size=16, batch_size=10, workers=0),
        augment=foveal.config.AugmentConfig(min_scale=1.0),
        model="mobilenetv2_050_coordinate",
        model_args={"stem_stride": 1, "stages": 2},
        epochs=10,
        lr=1e-2,
        device="cpu",
        threads=1,
        out=str(tmp_path_factory.mktemp("runs") / "colours"),
    )
    return foveal.train(config)


def test_it_learns(finished):
    assert finished.metrics["test/accuracy"] >= 0.9


def test_the_run_folder_holds_what_the_contract_says(finished):
    names = {p.name for p in finished.path.iterdir()}
    assert names == {
        "config.yaml",
        "env.json",
        "classes.json",
        "metrics.csv",
        "metrics.json",
        "last.ckpt",
        "best.safetensors",
        "figures",
        "report.html",
    }
    assert json.loads((finished.path / "classes.json").read_text()) == ["amber", "blue", "coral"]
    text = (finished.path / "config.yaml").read_text()
    assert text.startswith("task: classify\n")
    assert from_dict(yaml.safe_load(text)) == finished.config
    figures = {p.name for p in (finished.path / "figures").iterdir()}
    assert figures >= {"curves.png", "predictions.png", "confusion.png", "gates.png"}
    with (finished.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(e) for e in range(1, 11)]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    environment = json.loads((finished.path / "env.json").read_text())
    recorded = environment["packages"]["torch"]
    assert recorded.split("+")[0] == torch.__version__.split("+")[0]  # wheels differ in +cu130


def test_metrics_have_the_contracts_names_and_ranges(finished):
    metrics = json.loads((finished.path / "metrics.json").read_text())
    assert metrics == finished.metrics
    for prefix in ("test/", "val/"):
        for name in ("accuracy", "accuracy_top5", "ece"):
            assert 0 <= metrics[prefix + name] <= 1
        assert metrics[prefix + "nll"] >= 0


def test_load_returns_the_network_ready_to_use(finished, colors):
    model = foveal.load(finished.path)
    assert not model.training
    assert model.classes == ("amber", "blue", "coral")
    right = 0
    for k, name in enumerate(model.classes):
        for path in sorted((colors / "test" / name).iterdir()):
            x = model.preprocess(Image.open(path))
            right += int(model(x[None]).argmax() == k)
    assert right / 15 == pytest.approx(finished.metrics["test/accuracy"])
    state = load_file(finished.path / "best.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_evaluate_gives_the_runs_own_numbers(finished):
    result = foveal.evaluate(finished)
    expected = {k: v for k, v in finished.metrics.items() if k.startswith("test/")}
    assert result.scores == expected
    assert result.pictures == 15
    assert result.origin == "folder test/"
    assert "val/accuracy" in foveal.evaluate(finished.path, split="val").scores


def test_evaluate_matches_classes_by_name(finished, colors, tmp_path):
    for name in ("blue", "amber"):
        for part in ("train", "val", "test"):
            (tmp_path / part / name).mkdir(parents=True)
            for path in (colors / "test" / name).iterdir():
                (tmp_path / part / name / path.name).write_bytes(path.read_bytes())
    ours = foveal.evaluate(finished, root=tmp_path).scores["test/accuracy"]
    model = foveal.load(finished)
    images = [p for name in ("blue", "amber") for p in sorted((tmp_path / "test" / name).iterdir())]
    wanted = [p.parent.name for p in images]
    says = [model.classes[model(model.preprocess(Image.open(p))[None]).argmax()] for p in images]
    assert ours == pytest.approx(np.mean([a == b for a, b in zip(says, wanted, strict=True)]))


def test_evaluate_refuses_unknown_classes_and_splits(finished, tmp_path):
    for part in ("train", "val"):
        for name in ("bleu", "amber"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{part}{name}.png")
    with pytest.raises(ValueError, match="unknown class 'bleu': did you mean 'blue'"):
        foveal.evaluate(finished, root=tmp_path)
    with pytest.raises(ValueError, match="must be train, val or test, not 'tset'"):
        foveal.evaluate(finished, split="tset")


def test_same_seed_same_loss_other_seed_another(config, replaced, tmp_path):
    losses = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = foveal.train(replaced(config, out=str(tmp_path / name), seed=seed, max_steps=3))
        with (run.path / "metrics.csv").open() as file:
            losses.append(next(csv.DictReader(file))["train/loss"])
    assert losses[0] == losses[1] != losses[2]


def test_max_steps_ends_within_the_first_epoch_with_every_file(config, replaced):
    run = foveal.train(replaced(config, max_steps=2))
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2")]
    assert "test/accuracy" in run.metrics
    assert (run.path / "report.html").exists()
    assert foveal.train(run.config, resume=True).metrics == run.metrics


@pytest.fixture(scope="module")
def plain(colors, tmp_path_factory):
    """Return a run of one epoch with nothing switched on, over classes of unequal size."""
    root = tmp_path_factory.mktemp("uneven")
    shutil.copytree(colors, root, dirs_exist_ok=True)
    for i in range(5):
        (root / "train" / "amber" / f"{i}.png").unlink()
    config = foveal.ClassifyConfig(
        data=foveal.config.DataConfig(root=str(root), image_size=24, batch_size=6, workers=0),
        augment=foveal.config.AugmentConfig(min_scale=1.0, hflip=0.0),
        model="test_efficientnet",
        epochs=1,
        warmup_epochs=0.0,
        lr=3e-3,
        device="cpu",
        threads=1,
        out=str(tmp_path_factory.mktemp("runs") / "plain"),
    )
    return foveal.train(config)


def first_loss(run):
    with (run.path / "metrics.csv").open() as file:
        return next(csv.DictReader(file))["train/loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "momentum"},
        {"weight_decay": 0.5},
        {"schedule": "poly"},
        {"schedule": "linear"},
        {"schedule": "constant"},
        {"warmup_epochs": 1.0},
        {"clip_grad": 0.01},
        {"accumulate": 2},
        {"amp": "bf16", "channels_last": False},
        {"class_weights": "balanced"},
        {"loss_args": {"label_smoothing": 0.1}},
        {"augment": foveal.config.AugmentConfig(min_scale=1.0, hflip=0.0, mixup=0.4)},
        {"augment": foveal.config.AugmentConfig(min_scale=1.0, hflip=0.0, cutmix=1.0)},
        {"augment": foveal.config.AugmentConfig(min_scale=1.0, hflip=0.0, erasing=0.5)},
        {"model": "mobilenetv2_050_se", "model_args": {"in_chans": 1}},
        {"batch_size": 64},
    ],
    ids=str,
)
def test_each_option_changes_the_training(plain, replaced, tmp_path, changes):
    run = foveal.train(replaced(plain.config, out=str(tmp_path / "run"), **changes))
    assert first_loss(run) != first_loss(plain)
    assert np.isfinite(float(first_loss(run)))
    assert "test/accuracy" in run.metrics


@pytest.mark.parametrize("changes", [{}, {"tensorboard": True, "early_stopping": 1}], ids=str)
def test_what_only_watches_changes_nothing(plain, replaced, tmp_path, changes):
    if changes.get("tensorboard"):
        pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    run = foveal.train(replaced(plain.config, out=str(tmp_path / "run"), **changes))
    assert first_loss(run) == first_loss(plain)
    assert bool(changes) == bool(list((run.path / "tensorboard").glob("events*")))


def test_the_learning_rate_follows_its_schedule(config, replaced, monkeypatch):
    """Warm-up to the peak, then half a cosine; the formula is evaluated here in closed form."""
    from foveal.tasks.classify import ClassifyTask

    rates = []
    original = ClassifyTask.training_step

    def spy(self, batch, batch_idx):
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ClassifyTask, "training_step", spy)
    foveal.train(replaced(config, epochs=4, lr=0.1, warmup_epochs=1.0))
    steps, warmup = 20, 5
    expected = [0.001 + (0.1 - 0.001) * t / warmup for t in range(warmup)]
    expected += [0.1 * 0.5 * (1 + np.cos(np.pi * t / steps)) for t in range(warmup, steps)]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_early_stopping_stops_and_stays_stopped(config, replaced):
    run = foveal.train(replaced(config, epochs=30, early_stopping=2, lr=1e-7))
    rows = (run.path / "metrics.csv").read_text().count("\n") - 1
    assert rows < 30
    (run.path / "metrics.json").unlink()
    again = foveal.train(run.config, resume=True)
    assert (run.path / "metrics.csv").read_text().count("\n") - 1 == rows
    assert again.metrics == run.metrics


def test_averaged_weights_are_those_that_are_kept(config, replaced, tmp_path):
    with_average = foveal.train(replaced(config, ema_decay=0.99))
    without = foveal.train(replaced(config, ema=False, out=str(tmp_path / "plain")))
    a, b = (load_file(run.path / "best.safetensors") for run in (with_average, without))
    assert a.keys() == b.keys()
    key = "conv_stem.weight"
    assert not torch.equal(a[key], b[key])
    last = torch.load(with_average.path / "last.ckpt", weights_only=True)["state_dict"]
    plain = torch.load(without.path / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(last[f"model.{key}"], plain[f"model.{key}"])  # the average only watches


def test_a_loss_that_blows_up_is_said(config, replaced):
    with pytest.raises(ValueError, match=r"training loss became (nan|inf) in epoch 1: try a lower"):
        foveal.train(replaced(config, lr=1e30, optimizer="momentum", ema=False, warmup_epochs=0.0))


def test_damaged_pictures_stop_or_are_left_out(config, replaced, colors, tmp_path):
    for path in colors.rglob("*.png"):
        copy = tmp_path / "data" / path.relative_to(colors)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = tmp_path / "data" / "train" / "blue" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    config = replaced(config, root=str(tmp_path / "data"), epochs=1, workers=1)
    with pytest.raises(ValueError, match=r"train.blue.3\.png") as error:
        foveal.train(replaced(config, out=str(tmp_path / "stop")))
    assert "\n" not in str(error.value)
    broken.write_bytes(b"")  # an empty file is found before the training starts
    with pytest.raises(ValueError, match=r"3\.png: the file is empty \(1 of 30 pictures cannot"):
        foveal.train(replaced(config, out=str(tmp_path / "empty")))
    assert not (tmp_path / "empty").exists()
    run = foveal.train(replaced(config, on_error="skip"))
    assert str(broken) in (run.path / "skipped.txt").read_text()
    assert str(broken) in (run.path / "report.html").read_text()


def test_the_report_is_one_escaped_page(config, replaced, colors, tmp_path):
    nasty = "<script>alert('x')</script>".replace("/", "")
    for part in ("train", "val"):
        for name, color in ((nasty, 30), ("b & c", 220)):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(4):
                image = Image.new("RGB", (24, 24), (color + i, i, part == "val"))
                image.save(tmp_path / "data" / part / name / f"{i}.png")
    with warnings.catch_warnings():
        run = foveal.train(replaced(config, root=str(tmp_path / "data"), epochs=1))
    page = (run.path / "report.html").read_text()
    assert "<script>" not in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<figure>") == len(list((run.path / "figures").glob("*.png")))


def test_several_labels_per_picture(config, replaced, colors, tmp_path):
    lines = ["path,labels,split"]
    for part in ("train", "val", "test"):
        for name in ("amber", "blue", "coral"):
            warm = "" if name == "blue" else ";warm"
            paths = sorted((colors / part / name).iterdir())
            lines += [f"{path},{name}{warm},{part}" for path in paths]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    run = foveal.train(
        replaced(
            config, root=str(tmp_path / "labels.csv"), multi_label=True, class_weights="balanced"
        )
    )
    assert set(run.metrics) >= {"test/map", "test/accuracy", "test/nll", "val/map"}
    assert foveal.load(run).classes == ("amber", "blue", "coral", "warm")
    (prediction,) = foveal.predict(run, colors / "test" / "blue" / "0.png")
    assert set(filter(None, prediction.label.split(";"))) <= {"amber", "blue", "coral", "warm"}
    assert foveal.evaluate(run).scores["test/map"] == run.metrics["test/map"]


@pytest.mark.slow
def test_a_compiled_network_trains_and_saves_plain_keys(config, replaced):
    run = foveal.train(replaced(config, compile=True, epochs=1, fgsm=0.1))
    assert not any("_orig_mod" in key for key in load_file(run.path / "best.safetensors"))
    for name in ("test/accuracy", "test/accuracy_fgsm"):
        assert foveal.evaluate(run).scores[name] == run.metrics[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mobilenetv2_050_coordinat"}, "did you mean 'mobilenetv2_050_coordinate'?"),
        ({"loss": "cross_entropi"}, "unknown loss 'cross_entropi': did you mean 'cross_entropy'?"),
        ({"loss_args": {"label_smoothin": 0.1}}, "did you mean 'label_smoothing'?"),
        ({"device": "cuda"}, "PyTorch sees no GPU here"),
        ({"amp": "fp16"}, "--amp fp16 needs a GPU"),
        ({"optimizer": "adamww"}, "did you mean 'adamw'?"),
        ({"model": "vit_tiny_patch16_224", "image_size": 100, "model_args": {}}, "224"),
    ],
)
def test_wrong_settings_are_one_sentence(config, replaced, changes, message):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises((ValueError, TypeError)) as error:
        foveal.train(replaced(config, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (foveal.tasks.training.Path(config.out) / "config.yaml").exists()


def test_a_file_where_the_run_should_go(config, replaced, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="this is a file, it must be a folder"):
        foveal.train(replaced(config, out=str(tmp_path / "file")))


def test_loading_what_is_no_run(tmp_path, finished):
    with pytest.raises(ValueError, match=r"not a run folder, it has no config\.yaml"):
        foveal.load(tmp_path)
    with pytest.raises(ValueError, match=r"did you mean .*colours"):
        foveal.load(finished.path.parent / "colors")
