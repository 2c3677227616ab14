"""Runs from image labels on real pictures, from the layouts in which they are distributed."""

import csv
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal.cli import main
from foveal.tasks.run import open_run

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("FOVEAL_DATA_ROOT"), reason="FOVEAL_DATA_ROOT is not set"
    ),
    pytest.mark.slow,
]
FLAGS = (
    "--classifier.backbone test_efficientnet --classifier.data.image_size 64 "
    "--model lraspp --backbone test_efficientnet --data.image_size 64 --data.batch_size 8 "
    "--sliding.flip false --data.workers 0 --device cpu --max_steps 2"
)


def data(name):
    return Path(os.environ["FOVEAL_DATA_ROOT"]) / name


def trained(root, out, *flags):
    words = ["train", "weak", f"--data.root={root}", *FLAGS.split(), *flags, f"--out={out}"]
    assert main(words) == 0
    return open_run(out)


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def shown_in(report):
    return report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def voc_run(tmp_path_factory):
    if not os.environ.get("FOVEAL_DATA_ROOT"):
        pytest.skip("FOVEAL_DATA_ROOT is not set")
    return trained(data("mini-voc") / "VOCdevkit", tmp_path_factory.mktemp("voc") / "run")


def test_voc_is_scored_by_its_masks(voc_run):
    """VOC has no test part: its scores are those of val, and nothing is mined twice."""
    masks = voc_run.path / "labels" / "train" / "masks"
    assert len(list(masks.iterdir())) == 32  # two batches of activation.batch_size
    assert not (voc_run.path / "mining" / "test").exists()
    for name in ("seed_miou", "mined_miou", "mined_iou_small", "miou"):
        assert voc_run.metrics[f"test/{name}"] == voc_run.metrics[f"val/{name}"]
    assert 0 < voc_run.metrics["test/mined_miou"] < 1
    assert "test/pseudo_miou" not in voc_run.metrics


def test_voc_labels_lie_beside_their_pictures_at_full_size(voc_run):
    own = voc_run.path / "labels"
    settings = json.loads((own / "settings.json").read_text())
    assert settings["pseudo_labels"] == ["train"]
    assert settings["labels"]["15"] == "person"
    voc = data("mini-voc") / "VOCdevkit" / "VOC2012"
    truth = voc / "SegmentationClass"
    for path in sorted((own / "train" / "masks").iterdir())[:8]:
        assert pixels(path).shape == pixels(truth / path.name).shape
        objects = ElementTree.parse(voc / "Annotations" / f"{path.stem}.xml").iter("object")
        shown = {one.findtext("name") for one in objects}
        found = {settings["labels"][str(label)] for label in np.unique(pixels(path))}
        assert found <= {"background", "ignored", *shown}
    for path in sorted((own / "val" / "masks").iterdir()):
        np.testing.assert_array_equal(pixels(path), pixels(truth / path.name))


def test_the_report_shows_steps_thresholds_and_sizes(voc_run):
    figures = {path.name for path in (voc_run.path / "figures").iterdir()}
    names = ("mining", "mining_curves", "object_sizes", "labels", "predictions", "curves")
    assert figures >= {f"{name}.png" for name in names}
    page = shown_in(voc_run.path / "report.html")
    for text in ("What was mined", "Threshold and steps", "Small and large objects"):
        assert text in page
    for stage in ("classifier", "mining", "labels", "segment"):
        assert f"stage {stage}: " in page
    with (voc_run.path / "unmined.csv").open() as file:
        count = len(list(csv.DictReader(file)))
    assert f"for which nothing was mined: {count}" in page


def test_the_run_is_used_by_every_command(voc_run, tmp_path, capsys):
    pictures = data("mini-voc") / "VOCdevkit" / "VOC2012" / "JPEGImages"
    chosen = str(sorted(pictures.iterdir())[0])
    folder = str(voc_run.path)
    assert main(["eval", folder]) == 0
    assert f"test/miou {voc_run.metrics['test/miou']:.4f}" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["predict", folder, chosen, "--out", str(tmp_path / "predicted")]) == 0
    (mask,) = (tmp_path / "predicted" / "masks").iterdir()
    assert pixels(mask).shape == pixels(chosen).shape[:2]
    assert main(["explain", folder, chosen, "--out", str(tmp_path / "explained")]) == 0
    assert (tmp_path / "explained" / "explanations.png").is_file()


def test_class_folders_without_any_mask(tmp_path):
    """Salient in a square: outside it no class is left, and within it no background."""
    root, maps = data("PACS") / "PACS" / "photo", tmp_path / "saliency"
    square = np.zeros((227, 227), np.uint8)
    square[60:180, 60:180] = 255
    for path in root.rglob("*.jpg"):
        target = maps / path.parent.name / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(target)
    run = trained(root, tmp_path / "run", f"--pseudo.saliency={maps}", "--rounds=2")
    masks = [pixels(path) for path in (run.path / "labels/train/masks").iterdir()]
    assert len(masks) == 32
    assert all({*np.unique(found[square == 0])} <= {0, 255} for found in masks)
    assert all(0 not in found[square > 0] for found in masks)
    assert 0 <= run.metrics["test/pseudo_miou"] <= 1
    assert not {"test/miou", "test/mined_miou"} & {*run.metrics}
    assert "no masks" in shown_in(run.path / "report.html")
    assert not (run.path / "figures" / "object_sizes.png").exists()
    found = foveal.evaluate(run)
    assert found.scores["test/pseudo_miou"] == run.metrics["test/pseudo_miou"]
