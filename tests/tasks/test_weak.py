"""Runs from labels of whole pictures to a network that names pixels."""

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import foveal
from foveal.config import ActivationConfig, MiningConfig, PseudoLabelConfig, from_dict
from foveal.data.weak import read_weak
from foveal.tasks.checkpointing import RunInterrupted
from foveal.tasks.run import read_config
from foveal.tasks.weak_mining import MinedSplit

LABELS = ("ground", "bar", "disc")


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def maps(folder):
    return {path.name: pixels(path) for path in sorted(folder.glob("*.png"))}


def same_maps(a, b):
    first, second = maps(a), maps(b)
    return bool(first) and all(np.array_equal(first[k], second[k]) for k in first | second)


def same_weights(a, b):
    first, second = (load_file(path / "best.safetensors") for path in (a, b))
    return all(torch.equal(first[k], second[k]) for k in first | second)


def test_a_run_leaves_every_file_of_the_contract(weak_run):
    names = {path.name for path in weak_run.path.iterdir()}
    assert names >= {
        "config.yaml",
        "env.json",
        "classes.json",
        "metrics.csv",
        "metrics.json",
        "last.ckpt",
        "best.safetensors",
        "figures",
        "report.html",
        "stages.json",
        "unmined.csv",
        *("classifier", "mining", "labels", "segment", "labels_2", "segment_2"),
    }
    assert json.loads((weak_run.path / "classes.json").read_text()) == list(LABELS)
    figures = {path.name for path in (weak_run.path / "figures").iterdir()}
    assert figures >= {"mining.png", "mining_curves.png", "object_sizes.png", "labels.png"}
    page = (weak_run.path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(figures)
    assert "<td>test/mined_miou</td>" in page
    stages = json.loads((weak_run.path / "stages.json").read_text())
    assert list(stages) == ["classifier", "mining", "labels", "segment"]
    assert all(one["finished"] and one["seconds"] > 0 for one in stages.values())
    # Each picture is seen once, and each of its classes at least once more.
    assert 1 <= stages["mining"]["forwards_per_picture"]["train"] <= 1 + 2 * 3


def test_it_learns_what_is_there_to_learn(weak_run):
    """The colours are far apart; everything named ground would have less than 0.3."""
    assert weak_run.metrics["test/mined_miou"] > 0.75
    assert weak_run.metrics["test/seed_miou"] > 0.75
    assert weak_run.metrics["test/miou"] > 0.6


def test_scores_are_those_of_the_pictures_one_by_one(weak_run, toys):
    """Pseudo labels of training pictures against the masks, which are numbered another way."""
    data = read_weak(None, toys)
    counts = np.zeros((3, 3), int)
    for index in range(len(data.splits["train"])):
        truth = data.splits["train"].truth(index)
        found = pixels(weak_run.path / "labels" / "train" / "masks" / f"toys-train_{index}.png")
        for t in range(3):
            for k in range(3):
                counts[t, k] += int(((truth == t) & (found == k)).sum())
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    expected = (counts.diagonal() / union).mean()
    assert weak_run.metrics["train/labels_miou"] == pytest.approx(expected)
    assert weak_run.metrics["train/mined_miou"] == pytest.approx(expected)
    assert weak_run.metrics["train/labels_ignored"] == 0


def test_label_values_are_the_classes_of_the_classifier_and_one(weak_run, toys):
    """From label to label map and back: no class that the picture does not show."""
    data = read_weak(None, toys)
    assert data.classes == LABELS
    assert foveal.load(weak_run.path / "classifier").classes == LABELS[1:]
    for folder in ("labels", "labels_2"):
        for index, shown in enumerate(data.splits["train"].targets):
            name = f"toys-train_{index}.png"
            found = pixels(weak_run.path / folder / "train" / "masks" / name)
            assert {*np.unique(found)} <= {0, 255, *(np.flatnonzero(shown) + 1)}
    settings = json.loads((weak_run.path / "labels" / "settings.json").read_text())
    assert settings["labels"] == {"0": "ground", "1": "bar", "2": "disc", "255": "ignored"}
    assert settings["mining"]["tau"] == 0.5
    assert settings["pseudo"]["conflict"] == "score"
    assert settings["pseudo_labels"] == ["train"]
    with Image.open(weak_run.path / "labels/train/masks/toys-train_0.png") as stored:
        palette = stored.getpalette()
        assert stored.mode == "P"
    assert palette[3:9] == [0, 0, 255, 255, 128, 0]  # the masks' colours, by name


def test_the_network_is_used_as_that_of_a_segmentation_run(weak_run, tmp_path):
    model = weak_run.load()
    assert model.classes == LABELS
    assert same_weights(weak_run.path, weak_run.path / "segment_2")
    for split in ("val", "test"):
        found = foveal.evaluate(weak_run, split=split).scores
        assert found == {key: weak_run.metrics[key] for key in found}
    image = Image.new("RGB", (40, 36), (30, 50, 220))
    (prediction,) = foveal.predict(weak_run, image)
    assert prediction.labels.shape == (36, 40)
    (explanation,) = foveal.explain(weak_run, image, target="bar")
    assert explanation.map.shape == (36, 40)
    foveal.export(weak_run, "safetensors", tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_size > 1000
    config = read_config(weak_run.path)
    assert from_dict({"task": "weak", **dataclasses.asdict(config)}) == config
    assert config.stage == "all"


def test_labels_are_read_back_as_a_layout(weak_run):
    found = foveal.evaluate(weak_run, root=weak_run.path / "labels", split="train")
    assert "train/pseudo_miou" in found.scores
    assert "pseudo labels" in found.origin
    true = foveal.evaluate(weak_run, root=weak_run.path / "labels")
    assert true.scores["test/miou"] == weak_run.metrics["test/miou"]


def test_one_stage_after_another_is_the_same_as_all(weak_run, weak_config):
    config = dataclasses.replace(weak_config, rounds=2)
    with pytest.raises(ValueError, match=r"--stage mining needs the stage classifier, which is no"):
        foveal.train(dataclasses.replace(config, stage="mining"))
    for stage in ("classifier", "mining", "labels", "segment"):
        run = foveal.train(dataclasses.replace(config, stage=stage))
        assert bool(run.metrics) == (stage == "segment")
        if stage == "labels":
            with pytest.raises(ValueError, match=r"no best\.safetensors yet: go on with it"):
                run.load()
    assert same_weights(run.path, weak_run.path)
    assert run.metrics == pytest.approx(weak_run.metrics, nan_ok=True)
    assert same_maps(run.path / "labels_2/train/masks", weak_run.path / "labels_2/train/masks")


def test_masks_never_reach_the_training(weak_run, weak_config, toys, monkeypatch):
    """With the masks of training pictures dealt out anew, all but their scores is the same."""
    from foveal.data.layouts import LAYOUTS

    def read():
        found = layout.also["segment"]()
        train = found.parts["train"]
        train.maps = [np.roll(labels, 16, (0, 1)) for labels in train.maps]
        return found

    layout = LAYOUTS[toys]
    with monkeypatch.context() as patch:
        patch.setitem(LAYOUTS, toys, dataclasses.replace(layout, also={"segment": read}))
        run = foveal.train(dataclasses.replace(weak_config, rounds=2))
    assert run.metrics["train/mined_miou"] < weak_run.metrics["train/mined_miou"] - 0.2
    assert same_maps(run.path / "labels/train/masks", weak_run.path / "labels/train/masks")
    assert same_weights(run.path, weak_run.path)
    assert run.metrics["test/miou"] == weak_run.metrics["test/miou"]


def test_an_interrupted_mining_goes_on_where_it_was(weak_run, weak_config, monkeypatch):
    config = dataclasses.replace(weak_config, rounds=2)
    original = MinedSplit.save

    def save(self, batch, *args):
        if self.folder.name == "train" and batch == 2:
            raise KeyboardInterrupt
        original(self, batch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(MinedSplit, "save", save)
        with pytest.raises(RunInterrupted, match=r"go on with: foveal train --config .* --resume"):
            foveal.train(config)
    done = sorted(path.name for path in (Path(config.out) / "mining/train").iterdir())
    assert done == ["00000", "00001"]
    stages = json.loads((Path(config.out) / "stages.json").read_text())
    assert not stages["mining"]["finished"]
    saved = []
    monkeypatch.setattr(
        MinedSplit,
        "save",
        lambda self, batch, *args: (saved.append(batch), original(self, batch, *args)),
    )
    run = foveal.train(config, resume=True)
    assert saved[0] == 2
    assert same_maps(run.path / "labels/train/masks", weak_run.path / "labels/train/masks")
    assert same_weights(run.path, weak_run.path)


def test_settings_may_change_until_their_stage_begins(weak_config):
    classifier = dataclasses.replace(weak_config, stage="classifier")
    foveal.train(classifier)
    mining = dataclasses.replace(weak_config, stage="mining", mining=MiningConfig(max_steps=2))
    run = foveal.train(mining)
    assert read_config(run.path).mining.max_steps == 2
    other = dataclasses.replace(mining, mining=MiningConfig(max_steps=2, tau=0.3))
    with pytest.raises(ValueError, match=r"has another mining\.tau: leave them .* delete .*mining"):
        foveal.train(other)
    slower = dataclasses.replace(mining.classifier, lr=1e-7)
    with pytest.raises(ValueError, match=r"has another classifier\.lr: .* delete .*classifier,"):
        foveal.train(dataclasses.replace(mining, classifier=slower))
    with pytest.raises(ValueError, match="already holds a run"):
        foveal.train(weak_config)
    assert foveal.train(dataclasses.replace(mining, device="auto")).metrics == {}


def test_another_classifier_is_not_mixed_with_what_was_mined(weak_run, weak_config, tmp_path):
    """Mined by one classifier, then its weights change."""
    given = weak_run.path / "classifier"
    config = dataclasses.replace(weak_config, classifier_run=str(given), max_steps=1)
    run = foveal.train(dataclasses.replace(config, stage="mining"))
    assert not (run.path / "classifier").exists()
    other = dataclasses.replace(weak_config, out=str(tmp_path / "other"), stage="classifier")
    faster = dataclasses.replace(other.classifier, lr=0.1)
    own = foveal.train(dataclasses.replace(other, classifier=faster)).path / "classifier"
    with pytest.raises(ValueError, match="has another classifier_run"):
        foveal.train(dataclasses.replace(config, classifier_run=str(own), stage="labels"))
    third = dataclasses.replace(config, classifier_run=str(weak_run.path), out=str(tmp_path / "3"))
    with pytest.raises(ValueError, match="is a run of weak, where one of classify is expected"):
        foveal.train(third)


def test_a_classifier_of_other_classes_is_found_before_any_stage(weak_run, weak_config, tmp_path):
    copy = tmp_path / "classifier"
    shutil.copytree(weak_run.path / "classifier", copy)
    (copy / "classes.json").write_text('["bar", "cone"]')
    config = dataclasses.replace(weak_config, classifier_run=str(copy))
    with pytest.raises(ValueError, match="has learned the classes bar, cone, and these pictures"):
        foveal.train(config)
    assert not Path(config.out).exists()


def test_a_class_in_every_picture_is_named(weak_config, capsys):
    """The first pictures that are mined show both classes, so neither has a threshold."""
    config = dataclasses.replace(weak_config, activation=ActivationConfig(batch_size=1))
    foveal.train(dataclasses.replace(config, max_steps=1))
    said = "every training picture that is mined shows bar, disc: such regions are mined while"
    assert said in capsys.readouterr().out


def test_training_labels_are_scored_by_the_last_round(weak_run):
    scores = foveal.evaluate(weak_run, split="train").scores
    last = foveal.evaluate(weak_run, root=weak_run.path / "labels_2", split="train").scores
    first = foveal.evaluate(weak_run, root=weak_run.path / "labels", split="train").scores
    assert scores == last != first


def test_max_steps_ends_every_stage(weak_config):
    """One batch of the classifier, of mining in each split, and of the network."""
    run = foveal.train(dataclasses.replace(weak_config, max_steps=1))
    assert len(list((run.path / "labels/train/masks").iterdir())) == 4
    assert len(list((run.path / "labels/test/masks").iterdir())) == 8  # all are tested
    for name in ("classifier", "segment"):
        with (run.path / name / "metrics.csv").open() as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["1"]


def test_pictures_for_which_nothing_is_mined_are_listed(weak_config, capsys):
    """No region is as large as the whole picture."""
    config = dataclasses.replace(weak_config, mining=MiningConfig(min_area=10**6), max_steps=1)
    run = foveal.train(config)
    with (run.path / "unmined.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Of four pictures each: both, a bar, a disc, nothing.
    assert [(row["split"], row["picture"], row["class"]) for row in rows[:3]] == [
        ("train", "toys-train[0]", "bar"),
        ("train", "toys-train[0]", "disc"),
        ("train", "toys-train[1]", "bar"),
    ]
    assert len(rows) == 3 * 4
    said = capsys.readouterr().out
    assert "nothing was mined for 12 of 12 classes of pictures, in 9 pictures, listed in" in said
    assert "that is most of them" in said
    assert run.metrics["test/mined_iou_large"] == 0
    assert math.isnan(run.metrics["test/steps_area_spearman"])
    assert run.metrics["train/labels_miou"] < 1 / 3


def test_pictures_without_labels_are_background_or_ignored(weak_config):
    config = dataclasses.replace(weak_config, max_steps=1, pseudo=PseudoLabelConfig(empty="ignore"))
    run = foveal.train(config)
    assert (pixels(run.path / "labels/train/masks/toys-train_3.png") == 255).all()
    assert run.metrics["train/labels_ignored"] > 0.2


def test_wrong_networks_and_settings_are_found_before_any_stage(weak_config):
    for changes, message in (
        ({"model": "resnet18"}, "names whole pictures: give it as --backbone"),
        ({"model": "dfi"}, "unknown model of `foveal train weak` 'dfi'"),
        ({"classifier_run": "nowhere"}, "nowhere: "),
        ({"pseudo": PseudoLabelConfig(saliency="none")}, "pseudo.saliency none: there is no such"),
        ({"rounds": 3}, r"rounds must lie in \[1, 2\], not 3"),
    ):
        with pytest.raises(ValueError, match=message):
            foveal.train(dataclasses.replace(weak_config, **changes))
        assert not Path(weak_config.out).exists()
