"""Segmentation runs on small pictures of coloured patches."""

import csv
import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import foveal
from foveal.config import DataConfig, SegmentAugmentConfig, SlidingConfig
from foveal.losses import OhemCrossEntropy, OnlineLabelSmoothing
from foveal.metrics import SegmentationScores
from foveal.models import TASK_NETWORKS
from foveal.models.sliding_window import class_probabilities, most_probable
from foveal.tasks import make_setup
from foveal.tasks.run import load


def test_a_run_leaves_every_file_of_the_contract(segment_run):
    names = {path.name for path in segment_run.path.iterdir()}
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
    }
    figures = {path.name for path in (segment_run.path / "figures").iterdir()}
    assert figures == {"curves.png", "predictions.png", "classes.png", "confusion.png"}
    metrics = json.loads((segment_run.path / "metrics.json").read_text())
    for split in ("val", "test"):
        scores = [f"{split}/iou/{name}" for name in ("ground", "disc", "bar")]
        assert metrics[f"{split}/miou"] == pytest.approx(sum(metrics[s] for s in scores) / 3)
        assert 0 < metrics[f"{split}/pixel_accuracy"] <= 1
    page = (segment_run.path / "report.html").read_text(encoding="utf-8")
    assert "<td>test/iou/disc</td>" in page
    assert page.count("data:image/png") == 4


def test_it_learns_what_is_there_to_learn(segment_run):
    """The colours are far apart; everything named ground would have 0.27."""
    assert segment_run.metrics["test/miou"] > 0.6


def test_the_scores_are_those_of_the_pictures_one_by_one(segment_run, patches):
    model = segment_run.load()
    assert model.classes == ("ground", "disc", "bar")
    counts = np.zeros((3, 3), int)
    for path in sorted((patches / "test" / "images").iterdir()):
        with Image.open(path) as image, Image.open(patches / "test" / "masks" / path.name) as mask:
            x, truth = model.preprocess(image), np.asarray(mask)
        assert x.shape[1:] == truth.shape
        (p,) = class_probabilities(model, [x], window=32, flip=False)
        labels = most_probable(p).numpy()
        for t in range(3):
            for k in range(3):
                counts[t, k] += int(((truth == t) & (labels == k)).sum())
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    assert segment_run.metrics["test/miou"] == pytest.approx((counts.diagonal() / union).mean())
    accuracy = counts.diagonal().sum() / counts.sum()
    assert segment_run.metrics["test/pixel_accuracy"] == pytest.approx(accuracy)


def test_evaluation_finds_the_numbers_again(segment_run):
    for split in ("val", "test"):
        found = foveal.evaluate(segment_run, split=split, batch_size=2)
        for name, value in found.scores.items():
            assert value == segment_run.metrics[name]
    mirrored = foveal.evaluate(segment_run, sliding={"flip": True, "scales": (0.75, 1.25)}).scores
    assert mirrored.keys() == found.scores.keys()
    assert mirrored["test/miou"] != found.scores["test/miou"]
    with pytest.raises(ValueError, match=r"sliding\.scales must be numbers above 0, not \[0\.0\]"):
        foveal.evaluate(segment_run, sliding={"scales": (0.0,)})
    with pytest.raises(ValueError, match="fgsm is of classify runs"):
        foveal.evaluate(segment_run, fgsm=0.1)


def test_scales_are_of_segment_runs(config, tmp_path):
    from foveal.tasks.run import write_config

    write_config(tmp_path, config)
    with pytest.raises(ValueError, match=r"mirror images\) is of segment runs, and .* classify"):
        foveal.evaluate(tmp_path, sliding={"flip": True})


def test_classes_are_matched_by_name(segment_run, paint_patches, tmp_path):
    """The same pictures under other numbers, and none of one class."""
    names = ("bar", "ground", "disc")
    other = paint_patches(tmp_path / "other", numbers=[names.index(n) for n in NAMES])
    (other / "classes.txt").write_text("\n".join(names))
    assert foveal.evaluate(segment_run, root=other).scores == foveal.evaluate(segment_run).scores
    (other / "classes.txt").write_text("bar\nground\ndisk\n")
    with pytest.raises(ValueError, match="fit this run: unknown class 'disk': did you mean 'disc'"):
        foveal.evaluate(segment_run, root=other)


NAMES = ("ground", "disc", "bar")


def test_a_class_that_never_occurs_is_left_out_and_named(
    segment_config, paint_patches, tmp_path, capsys
):
    """With a network that cannot predict it, as its logits are all lower."""
    root = paint_patches(tmp_path / "data")
    (root / "classes.txt").write_text("ground\ndisc\nbar\nunicorn\n")
    config = dataclasses.replace(
        segment_config, data=dataclasses.replace(segment_config.data, root=str(root)), max_steps=1
    )
    setup = make_setup(config)
    with torch.no_grad():
        for name in setup.model.default_cfg["classifier"]:
            setup.model.get_submodule(name).bias[3] = -1e4
    model = tmp_path / "start.pt"
    torch.save(setup.model.state_dict(), model)
    run = foveal.train(dataclasses.replace(config, checkpoint=str(model)))
    told = "neither in the truth nor predicted, so left out of the mean: unicorn"
    assert told in capsys.readouterr().out
    assert "test/iou/unicorn" not in run.metrics
    scores = [run.metrics[f"test/iou/{n}"] for n in NAMES if f"test/iou/{n}" in run.metrics]
    assert run.metrics["test/miou"] == pytest.approx(sum(scores) / len(scores))
    assert "left out of the mean: unicorn" in (run.path / "report.html").read_text("utf-8")
    assert foveal.evaluate(run).remarks == (told,)


def test_pictures_ignored_as_a_whole_do_no_harm(segment_config, paint_patches, tmp_path, replaced):
    root = paint_patches(tmp_path / "data")
    for split in ("train", "val", "test"):
        for path in sorted((root / split / "masks").iterdir())[:2]:
            with Image.open(path) as mask:
                size = mask.size
            Image.new("L", size, 255).save(path)
    changed = replaced(segment_config, root=str(root), batch_size=1, max_steps=6)
    run = foveal.train(changed)
    rows = list(csv.DictReader((run.path / "metrics.csv").read_text().splitlines()))
    assert all(np.isfinite(float(row["train/loss"])) for row in rows)
    assert 0 <= run.metrics["test/miou"] <= 1


def test_a_set_without_labels_has_scores_of_nothing(
    segment_config, paint_patches, tmp_path, replaced
):
    root = paint_patches(tmp_path / "data")
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    for path in [*root.glob("val/masks/*.png"), *root.glob("test/masks/*.png")]:
        with Image.open(path) as mask:
            size = mask.size
        Image.new("L", size, 255).save(path)
    run = foveal.train(replaced(segment_config, root=str(root), max_steps=1))
    assert json.loads((run.path / "metrics.json").read_text("utf-8"))["test/miou"] is None
    assert math.isnan(run.metrics["test/miou"])
    (told,) = foveal.evaluate(run).remarks
    assert told == "the masks show no class (255 in a mask means ignored)"


def test_wrong_masks_of_the_test_are_found_before_training(
    segment_config, paint_patches, tmp_path, replaced
):
    root = paint_patches(tmp_path / "data")
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    with Image.open(root / "test/masks/3.png") as mask:
        size = mask.size
    Image.new("L", size, 9).save(root / "test/masks/3.png")
    with pytest.raises(ValueError, match=r"masks/3\.png: has the value 9 .*1 of 5 pictures cannot"):
        foveal.train(replaced(segment_config, root=str(root), max_steps=1))
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_labels_of_a_run_are_not_asked_of_other_data(segment_run, patches, tmp_path):
    """A run on one of a layout's sets of labels is scored on data of another layout."""
    from foveal.tasks.run import read_config, write_config

    folder = tmp_path / "run"
    shutil.copytree(segment_run.path, folder)
    data = dataclasses.replace(read_config(folder).data, labels="original")
    write_config(folder, dataclasses.replace(read_config(folder), data=data))
    assert foveal.evaluate(folder, root=patches).scores == foveal.evaluate(segment_run).scores
    with pytest.raises(ValueError, match="one set of labels"):
        foveal.evaluate(folder, root=patches, labels="original")


def test_rates_of_heads_are_ten_times_the_backbones(segment_config):
    task = make_setup(dataclasses.replace(segment_config, head_lr_scale=10.0)).task()
    optimizer = task.make_optimizer()
    own = {id(p) for p in task.model.backbone.parameters()}
    seen = 0
    for group in optimizer.param_groups:
        scale = 1 if id(group["params"][0]) in own else 10
        assert all((id(p) in own) == (scale == 1) for p in group["params"])
        assert group["lr_scale"] == scale
        assert group["weight_decay"] in (0.0, segment_config.weight_decay)
        seen += len(group["params"])
    assert seen == len(list(task.model.parameters()))


@pytest.mark.parametrize("schedule", ["poly", "constant", "cosine"])
def test_the_schedule_keeps_the_ratio(segment_config, schedule, monkeypatch):
    """The recorded rate is the backbone's: lr (1 - t)^0.9, per step."""
    rates = []
    from foveal.tasks.segment import SegmentTask

    before = SegmentTask.on_train_batch_start

    def record(self, batch, batch_idx):
        rates.append([(g["lr"], g["lr_scale"]) for g in self.trainer.optimizers[0].param_groups])
        before(self, batch, batch_idx)

    monkeypatch.setattr(SegmentTask, "on_train_batch_start", record)
    config = dataclasses.replace(segment_config, schedule=schedule, max_steps=4, lr=0.02)
    foveal.train(dataclasses.replace(config, head_lr_scale=10.0))
    for step, groups in enumerate(rates):
        base = {rate / scale for rate, scale in groups}
        assert len({round(b, 12) for b in base}) == 1
        assert {scale for _, scale in groups} == {1.0, 10.0}
        if schedule == "poly":
            assert groups[0][0] == pytest.approx(0.02 * (1 - step / 4) ** 0.9)
    if schedule == "constant":
        assert len({tuple(groups) for groups in rates}) == 1


def test_losses_reach_the_pixels(segment_config):
    config = dataclasses.replace(
        segment_config, loss="ohem_cross_entropy", loss_args={"min_kept": 50}
    )
    loss = make_setup(config).task(training=False).loss
    assert isinstance(loss.main, OhemCrossEntropy)
    assert (loss.main.min_kept, loss.main.ignore_index) == (50, 255)
    assert loss.weight == config.aux_weight


def test_class_weights_count_training_pixels(segment_config, patches):
    config = dataclasses.replace(segment_config, class_weights="balanced")
    weight = make_setup(config).task().loss.main.weight
    pixels = np.zeros(256)
    for path in (patches / "train" / "masks").iterdir():
        with Image.open(path) as mask:
            pixels += np.bincount(np.asarray(mask).ravel(), minlength=256)
    expected = pixels[:3].sum() / (3 * pixels[:3])
    torch.testing.assert_close(weight, torch.tensor(expected).float())


def test_online_label_smoothing_of_pixels(segment_config):
    """Every pixel that counts and is predicted right is collected; the report shows the table."""
    config = dataclasses.replace(segment_config, loss="online_label_smoothing", epochs=2)
    run = foveal.train(config)
    state = torch.load(run.path / "last.ckpt", weights_only=True)["state_dict"]
    soft = state["loss.main.soft_labels"]
    torch.testing.assert_close(soft.sum(1), torch.ones(3))
    assert not torch.allclose(soft, torch.full((3, 3), 1 / 3))
    assert state["loss.main.epoch"] == 2
    assert (run.path / "figures" / "soft_labels.png").is_file()
    task = make_setup(config).task(training=False)
    assert all(isinstance(part, OnlineLabelSmoothing) for part in task.collecting_losses())


class Pair(nn.Module):
    """A backbone of one convolution, a head and an auxiliary head."""

    def __init__(self, *, num_classes, **kw):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)
        self.head, self.auxiliary_head = (nn.Conv2d(4, num_classes, 1) for _ in range(2))

    def forward(self, x):
        maps = self.backbone(x).relu()
        logits = self.head(maps)
        return (logits, self.auxiliary_head(maps)) if self.training else logits


def test_the_auxiliary_head_is_trained_with_its_weight(segment_config, monkeypatch):
    monkeypatch.setitem(TASK_NETWORKS, "pair", ("segment", Pair))
    config = dataclasses.replace(
        segment_config, model="pair", model_args={}, backbone=None, aux_weight=0.25
    )
    setup = make_setup(config)
    task = setup.task()
    batch = next(iter(setup.loader("train", setup.batches("train"), augmented=True)))
    task.model.train()
    loss = task.training_loss(batch)
    logits, auxiliary = task.model(batch[0])
    entropy = nn.CrossEntropyLoss(ignore_index=255)
    expected = entropy(logits, batch[1]) + 0.25 * entropy(auxiliary, batch[1])
    torch.testing.assert_close(loss, expected)


def test_a_run_goes_on_where_it_stopped(segment_config, tmp_path, monkeypatch):
    """Bit for bit, soft labels and averaged weights included."""
    from safetensors.torch import load_file

    from foveal.tasks.checkpointing import RunInterrupted, SaveRun

    config = dataclasses.replace(
        segment_config, epochs=2, ema=True, loss="online_label_smoothing", channels_last=False
    )
    whole = foveal.train(dataclasses.replace(config, out=str(tmp_path / "whole")))
    config = dataclasses.replace(config, out=str(tmp_path / "stopped"))
    with monkeypatch.context() as patch:
        plain = SaveRun.on_train_batch_end

        def stop(self, trainer, module, outputs, batch, batch_idx):
            self.interrupted = batch_idx == 0 and trainer.current_epoch == 1
            plain(self, trainer, module, outputs, batch, batch_idx)

        patch.setattr(SaveRun, "on_train_batch_end", stop)
        with pytest.raises(RunInterrupted):
            foveal.train(config)
    stopped = foveal.train(config, resume=True)
    assert stopped.metrics == whole.metrics
    one, two = (load_file(run.path / "best.safetensors") for run in (whole, stopped))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize("window", [0, 24, 200])
def test_windows_of_any_size(segment_config, window):
    """Whole pictures, several windows, one larger than the picture."""
    sliding = SlidingConfig(window=window, flip=False)
    config = dataclasses.replace(segment_config, sliding=sliding, max_steps=1)
    run = foveal.train(config)
    assert {"test/miou", "val/miou"} <= run.metrics.keys()


def test_in_half_precision_with_averaged_weights(segment_config):
    run = foveal.train(dataclasses.replace(segment_config, amp="bf16", ema=True, max_steps=2))
    assert 0 <= run.metrics["test/miou"] <= 1


def test_a_crop_larger_than_the_picture(segment_config, replaced):
    run = foveal.train(replaced(segment_config, image_size=96, max_steps=1))
    assert load(run).preprocess.image_size == 96


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "deeplabv4"}, "unknown model of `foveal train segment` 'deeplabv4': did you"),
        ({"model": "resnet18"}, "resnet18 names whole pictures: give it as --backbone, and"),
        ({"backbone": "mobilenetv2_10"}, "mobilenetv2"),
        ({"model_args": {"backbone": "resnet18"}}, "model_args.backbone is --backbone"),
        ({"model_args": {"backbone_checkpoint": "x"}}, "backbone_checkpoint is --checkpoint"),
        (
            {"model": "deeplabv3", "model_args": {"output_stride": 4}},
            "output_stride must be 8, 16 or 32",
        ),
        ({"backbone": "test_vit"}, "cannot have output_stride=8"),
        ({"sliding": SlidingConfig(window=16, stride=20)}, "sliding.stride must be at most"),
        ({"loss_args": {"ignore_index": 0}}, "loss_args.ignore_index is 255 in every layout"),
        ({"loss": "ohem_cross_entropi"}, "did you mean 'ohem_cross_entropy'"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(segment_config, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_setup(dataclasses.replace(segment_config, **changes)).task()
    assert "\n" not in str(error.value)


def test_a_network_for_pixels_is_not_for_classification(config):
    with pytest.raises(ValueError, match="did you mean `foveal train segment`"):
        make_setup(dataclasses.replace(config, model="deeplabv3"))


def spoiled(root, how):
    image, mask = (sorted((root / "train" / part).iterdir())[0] for part in ("images", "masks"))
    if how == "value":
        with Image.open(mask) as stored:
            array = np.array(stored)
        array[0, :3] = 7
        Image.fromarray(array).save(mask)
    elif how == "size":
        Image.new("L", (9, 9)).save(mask)
    else:
        image.write_bytes(b"no picture")
    return image, mask


def test_a_wrong_label_stops_the_run_with_its_file(
    segment_config, paint_patches, tmp_path, replaced
):
    root = paint_patches(tmp_path / "data")
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    _, mask = spoiled(root, "value")
    with pytest.raises(ValueError, match=rf"{mask.name}.*has the value 7 in 3 pixels"):
        foveal.train(replaced(segment_config, root=str(root)))


@pytest.mark.parametrize("how", ["value", "size", "damage"])
def test_what_does_not_fit_is_skipped_where_that_is_wanted(
    segment_config, paint_patches, tmp_path, replaced, how
):
    root = paint_patches(tmp_path / "data")
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    image, mask = spoiled(root, how)
    setup = make_setup(replaced(segment_config, root=str(root), on_error="skip"))
    assert setup.size("train") == 7
    (complaint,) = setup.left_out
    assert (mask if how == "value" else image).name in complaint


def test_a_mask_of_another_size_stops_the_run(segment_config, paint_patches, tmp_path, replaced):
    root = paint_patches(tmp_path / "data")
    spoiled(root, "size")
    with pytest.raises(ValueError, match=r"but its mask .* has 9 by 9"):
        make_setup(replaced(segment_config, root=str(root)))


def test_resuming_with_other_masks_is_refused(segment_config, paint_patches, tmp_path, replaced):
    root = paint_patches(tmp_path / "data")
    config = replaced(segment_config, root=str(root), max_steps=1)
    run = foveal.train(config)
    (run.path / "metrics.json").unlink()
    (root / "val" / "images" / "0.png").unlink()
    (root / "val" / "masks" / "0.png").unlink()
    with pytest.raises(ValueError, match="the val pictures are not those of the run"):
        foveal.train(config, resume=True)


def test_a_run_is_exported_with_what_it_needs(segment_run, tmp_path):
    report = foveal.export(segment_run, "torch", tmp_path / "net")
    assert report.dynamic == ("batch", "height", "width")
    files = {"foveal.json": ""}
    program = torch.export.load(report.path, extra_files=files).module()
    metadata = json.loads(files["foveal.json"])
    assert metadata["task"] == "segment"
    assert metadata["backbone"] == "test_efficientnet"
    assert json.loads(metadata["classes"]) == list(NAMES)
    assert len(json.loads(metadata["colors"])) == 3
    x = torch.randn(2, 3, 45, 38)
    with torch.no_grad():
        torch.testing.assert_close(program(x), segment_run.load()(x), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_the_backbone_alone(segment_config, tmp_path):
    """Weights of the classification network go into the backbone; the heads stay random."""
    trunk = foveal.create_model("test_efficientnet", num_classes=7)
    torch.save(trunk.state_dict(), tmp_path / "trunk.pt")
    config = dataclasses.replace(segment_config, checkpoint=str(tmp_path / "trunk.pt"), max_steps=1)
    model = make_setup(config).model
    found = dict(model.backbone.named_parameters())
    (key,) = [k for k in found if k.endswith("conv_stem.weight")]
    assert torch.equal(found[key], trunk.conv_stem.weight)
    run = foveal.train(config)
    (tmp_path / "trunk.pt").unlink()
    run.load()


@pytest.mark.slow
def test_compiled_it_learns_the_same(segment_config):
    runs = [
        foveal.train(
            dataclasses.replace(segment_config, compile=c, epochs=1, out=f"{segment_config.out}{c}")
        )
        for c in (False, True)
    ]
    plain, compiled = (run.metrics for run in runs)
    assert compiled["test/pixel_accuracy"] == pytest.approx(plain["test/pixel_accuracy"], abs=0.02)


def test_batches_of_whole_pictures_are_small(segment_config, replaced):
    """As many as go through the network together; crops keep their batch size."""
    setup = make_setup(replaced(segment_config, batch_size=7))
    assert [x.shape[0] for x, _, _ in setup.task().loader] == [7]
    assert [len(pictures) for pictures, _, _ in setup.evaluation_loader("test")] == [4, 1]


def test_batch_size_by_task():
    assert foveal.SegmentConfig().data.batch_size == 16
    assert foveal.ClassifyConfig().data.batch_size == 64
    given = foveal.SegmentConfig(data=DataConfig(batch_size=3), augment=SegmentAugmentConfig())
    assert given.data.batch_size == 3


def test_label_noise_is_of_classification():
    with pytest.raises(ValueError, match=r"data\.label_noise swaps the one class of a picture"):
        foveal.SegmentConfig(data=DataConfig(label_noise=0.1))


def test_scores_have_the_names_of_the_contract(segment_config):
    task = make_setup(segment_config).task(training=False)
    assert isinstance(task.scores, SegmentationScores)
    assert task.scores.classes == NAMES
    assert task.monitor == "miou"
