"""Label noise and the attack of the final test, as a run has them."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import foveal
from foveal.metrics import fgsm
from foveal.tasks import make_setup
from foveal.tasks.run import load


def changed_labels(run):
    with (run.path / "label_noise.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def noisy(config, replaced):
    return replaced(config, label_noise=0.4, max_steps=2)


def test_label_noise_is_told_and_listed(noisy, colors, capsys):
    """4 of the 10 training pictures of each of 3 classes."""
    run = foveal.train(noisy)
    line = "label noise: symmetric 40 %, seed 0: 12 of 30 training labels changed"
    assert line in capsys.readouterr().out
    assert line in (run.path / "report.html").read_text(encoding="utf-8")
    rows = changed_labels(run)
    assert len(rows) == len({row["picture"] for row in rows}) == 12
    for row in rows:
        path = colors / "train" / row["true"] / row["picture"].rpartition("/")[2]
        assert str(path) == row["picture"]
        assert path.is_file()
        assert row["given"] != row["true"]
    assert run.config.data.label_noise == 0.4


def test_only_the_training_labels_are_wrong(config, noisy):
    true, wrong = make_setup(config), make_setup(noisy)
    a, b = true.fingerprint(), wrong.fingerprint()
    assert a["train"] != b["train"]
    assert (a["val"], a["test"]) == (b["val"], b["test"])
    assert (true.splits["train"].targets != wrong.splits["train"].targets).sum() == 12
    (_, target, index), *_ = wrong.loader("train", wrong.batches("train", shuffle=True))
    assert torch.equal(target, torch.as_tensor(wrong.splits["train"].targets)[index])


def test_evaluation_has_the_true_labels(noisy, replaced, colors):
    run = foveal.train(replaced(noisy, label_noise=0.9, label_noise_kind="pair", max_steps=5))
    setup = make_setup(run.config, load(run), ["train"])
    assert setup.splits["train"].targets.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    folders = [
        p for name in ("amber", "blue", "coral") for p in (colors / "train" / name).iterdir()
    ]
    right = [p.label in p.path for p in foveal.predict(run, folders)]
    assert foveal.evaluate(run, split="train").scores["train/accuracy"] == np.mean(right)


def test_noise_comes_after_damaged_pictures_have_been_left_out(noisy, replaced, colors, tmp_path):
    root = shutil.copytree(colors, tmp_path / "copy")
    for i in range(5):
        (root / "train" / "blue" / f"{i}.png").write_bytes(b"")
    run = foveal.train(replaced(noisy, root=str(root), on_error="skip"))
    rows = changed_labels(run)
    # 4 of 10, 2 of the 5 that open, 4 of 10
    assert [sum(row["true"] == name for row in rows) for name in ("amber", "blue", "coral")] == [
        4,
        2,
        4,
    ]
    damaged = {str(root / "train" / "blue" / f"{i}.png") for i in range(5)}
    assert not damaged & {row["picture"] for row in rows}


def test_resuming_with_other_noise_is_refused(noisy, replaced):
    run = foveal.train(noisy)
    (run.path / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"has another data\.label_noise_seed: leave"):
        foveal.train(replaced(noisy, label_noise_seed=1), resume=True)
    # The same config, but other labels: as where another version drew them.
    state = torch.load(run.path / "last.ckpt", weights_only=True)
    clean = make_setup(replaced(noisy, label_noise=0.0)).fingerprint()["train"]
    state["foveal"]["data"]["train"] = clean
    torch.save(state, run.path / "last.ckpt")
    with pytest.raises(ValueError, match="the train pictures are not those of the run"):
        foveal.train(noisy, resume=True)


def test_a_run_that_failed_leaves_no_list_of_labels(noisy, replaced, tmp_path):
    bad = replaced(noisy, batch_size=1, image_size=16, ema=False)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        foveal.train(bad)
    assert list((tmp_path / "run").iterdir()) == []


def test_balanced_weights_count_the_labels_that_are_trained_on(noisy, replaced):
    setup = make_setup(replaced(noisy, class_weights="balanced"))
    counts = np.bincount(setup.splits["train"].targets, minlength=3)
    assert counts.tolist() != [10, 10, 10]
    weight = setup.task(training=False).loss.weight
    torch.testing.assert_close(weight, torch.tensor(30 / (3 * counts)).float())


@pytest.fixture(scope="module")
def attacked(colors, tmp_path_factory):
    """Return a run that learned three colours and was tested under attack."""
    config = foveal.ClassifyConfig(
        data=foveal.config.DataConfig(root=str(colors), image_size=16, batch_size=10, workers=0),
        augment=foveal.config.AugmentConfig(min_scale=1.0),
        model="mobilenetv2_050_coordinate",
        model_args={"stem_stride": 1, "stages": 2},
        epochs=10,
        lr=1e-2,
        fgsm=0.2,
        device="cpu",
        threads=1,
        out=str(tmp_path_factory.mktemp("runs") / "attacked"),
    )
    return foveal.train(config)


def test_the_test_is_attacked_and_validation_is_not(attacked):
    metrics = json.loads((attacked.path / "metrics.json").read_text())
    assert metrics["test/accuracy_fgsm"] < metrics["test/accuracy"]
    assert not any(key.startswith("val/") and "fgsm" in key for key in metrics)
    assert "accuracy_fgsm" not in (attacked.path / "metrics.csv").read_text()
    page = (attacked.path / "report.html").read_text(encoding="utf-8")
    assert "<span>test/accuracy_fgsm</span>" in page


def test_the_accuracy_under_attack_is_that_of_the_attacked_pictures(attacked):
    """Each picture by itself, where the run took them in batches."""
    model = load(attacked)
    setup = make_setup(attacked.config, load(attacked), ["test"])
    mean, std = model.preprocess.mean, model.preprocess.std
    right = 0
    for index in range(15):
        x = model.preprocess(setup.splits["test"].load(index))[None]
        target = torch.tensor([int(setup.splits["test"].targets[index])])
        changed = fgsm(model, x, target, 0.2, mean=mean, std=std)
        right += int(model(changed).argmax() == target)
    assert attacked.metrics["test/accuracy_fgsm"] == pytest.approx(right / 15)


def test_evaluate_takes_the_runs_strength_another_or_none(attacked):
    metrics = attacked.metrics
    assert foveal.evaluate(attacked).scores == {
        key: value for key, value in metrics.items() if key.startswith("test/")
    }
    assert "test/accuracy_fgsm" not in foveal.evaluate(attacked, fgsm=0.0).scores
    val = foveal.evaluate(attacked, fgsm=1e-9, split="val").scores
    assert val["val/accuracy_fgsm"] == val["val/accuracy"] == metrics["val/accuracy"]
    with pytest.raises(ValueError, match=r"fgsm must lie in \[0, 1\], not 2"):
        foveal.evaluate(attacked, fgsm=2)


def test_an_attack_changes_no_other_number(attacked, replaced, tmp_path):
    plain = dataclasses.replace(attacked.config, fgsm=0.0, out=str(tmp_path / "plain"))
    metrics = dict(attacked.metrics)
    del metrics["test/accuracy_fgsm"]
    assert foveal.train(plain).metrics == metrics


def test_in_half_precision(config, replaced):
    run = foveal.train(replaced(config, amp="bf16", channels_last=False, max_steps=2, fgsm=0.1))
    assert 0 <= run.metrics["test/accuracy_fgsm"] <= 1
