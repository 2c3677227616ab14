"""Dense runs on small pictures of bright discs: what stands out, its outline, its middle line."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.io import savemat

import foveal
from foveal.config import DENSE_TASKS, DenseDataConfig, InferenceConfig, MapScoresConfig
from foveal.config import MapSetConfig as Set
from foveal.metrics import EDGES, SKELETONS, count_boundaries, score_saliency, summarize_boundaries
from foveal.tasks import make_setup
from foveal.tasks.checkpointing import RunInterrupted, SaveRun
from foveal.tasks.dense import maps_of, once

SALIENCY_SCORES = {
    *("mae", "max_f", "max_f_of_mean_curve", "mean_of_max_f", "mean_f", "adaptive_f", "s_measure"),
    *("e_measure", "max_e", "adaptive_e", "weighted_f", "min_max"),
}
LINE_SCORES = {"ods", "ois", "ap", "r50"}
SCORES = {
    "mean",
    *(f"saliency/{name}" for name in SALIENCY_SCORES),
    *(f"{task}/{name}" for task in ("edge", "skeleton") for name in LINE_SCORES),
}


@pytest.fixture(scope="session")
def three(paint_discs, tmp_path_factory):
    """Return the data of a run on three sets with different labels, numbers and sizes.

    That of edges is laid out as BSDS500 is, drawn by one to three people a picture.
    """
    root = tmp_path_factory.mktemp("three")
    paint_discs(root / "objects", ["saliency"], counts=(6, 2, 2), seed=1)
    paint_discs(root / "middles", ["skeleton"], counts=(5, 2, 3), sides=(40, 56), seed=2)
    paint_discs(root / "drawn", ["edge"], counts=(4, 2, 2), sides=(24, 32), seed=3)
    for split in ("train", "val", "test"):
        for folder in ("images", "groundTruth"):
            (root / "bsds" / folder / split).mkdir(parents=True)
        for path in sorted((root / "drawn" / split / "images").iterdir()):
            name = f"{split}{path.stem}"  # a picture is in one split only
            with Image.open(path) as image:
                image.save(root / "bsds" / "images" / split / f"{name}.jpg", quality=95)
            with Image.open(root / "drawn" / split / "edge" / path.name) as stored:
                line = np.asarray(stored)
            people = 1 + int(path.stem) % 3
            cells = np.empty((1, people), object)
            for k in range(people):
                cells[0, k] = {"Boundaries": np.roll(line, k, 0).astype(np.uint8)}
            file = root / "bsds" / "groundTruth" / split / f"{name}.mat"
            savemat(file, {"groundTruth": cells})
    return DenseDataConfig(
        saliency=Set(root=str(root / "objects")),
        edge=Set(root=str(root / "bsds")),
        skeleton=Set(root=str(root / "middles")),
        image_size=32,
        batch_size=5,
        workers=0,
    )


def with_sets(config, **sets):
    """Return a config whose pictures are in a folder for each task."""
    data = dataclasses.replace(
        config.data, root=None, **{task: Set(root=str(root)) for task, root in sets.items()}
    )
    return dataclasses.replace(config, data=data)


def test_a_run_leaves_every_file_of_the_contract(dense_run):
    names = {path.name for path in dense_run.path.iterdir()}
    assert names >= {
        *("config.yaml", "env.json", "classes.json", "metrics.csv", "metrics.json", "last.ckpt"),
        *("best.safetensors", "figures", "report.html"),
    }
    assert json.loads((dense_run.path / "classes.json").read_text()) == list(DENSE_TASKS)
    metrics = json.loads((dense_run.path / "metrics.json").read_text())
    assert set(metrics) == {"epoch", *(f"{s}/{name}" for s in ("val", "test") for name in SCORES)}
    for split in ("val", "test"):
        main = [
            metrics[f"{split}/{name}"] for name in ("saliency/max_f", "edge/ods", "skeleton/ods")
        ]
        assert metrics[f"{split}/mean"] == pytest.approx(sum(main) / 3)
    rows = list(csv.DictReader((dense_run.path / "metrics.csv").read_text().splitlines()))
    assert len(rows) == dense_run.config.epochs
    assert {f"val/{name}" for name in SCORES} | {"train/loss", "lr"} <= rows[0].keys()
    best = max(rows, key=lambda row: float(row["val/mean"]))
    assert float(best["val/mean"]) == metrics["val/mean"]
    page = (dense_run.path / "report.html").read_text(encoding="utf-8")
    assert "<td>test/saliency/max_f</td>" in page
    assert (dense_run.path / "figures" / "curves.png").is_file()


def test_what_was_found_is_in_the_config(dense_run):
    config = dense_run.config
    assert config.tasks == DENSE_TASKS
    assert config.data.layout == "pairs"
    assert config.data.edge == Set()


def test_it_learns_what_is_there_to_learn(dense_run):
    """The disc is far brighter than the ground; all salient everywhere would have 0.2."""
    assert dense_run.metrics["test/saliency/max_f"] > 0.8
    rows = list(csv.DictReader((dense_run.path / "metrics.csv").read_text().splitlines()))
    assert float(rows[-1]["train/loss"]) < 0.8 * float(rows[0]["train/loss"])


@pytest.mark.parametrize(("split", "thresholds"), [("test", 5), ("val", 2)])
def test_the_scores_are_those_of_the_pictures_one_by_one(dense_run, discs, split, thresholds):
    model, config = dense_run.load(), dense_run.config
    assert model.classes == DENSE_TASKS
    saliency, rows = [], {"edge": [], "skeleton": []}
    protocols = {"edge": EDGES, "skeleton": SKELETONS}
    for path in sorted((discs / split / "images").iterdir()):
        with Image.open(path) as image:
            x = model.preprocess(image)
        with torch.no_grad():
            (maps,) = maps_of(model, [x], DENSE_TASKS, config)
        for task in DENSE_TASKS:
            with Image.open(discs / split / task / path.name) as stored:
                truth = np.asarray(stored)
            assert maps[task].shape == x.shape[1:] == truth.shape
            if task == "saliency":
                saliency.append(score_saliency(maps[task], truth))
            else:
                protocol = dataclasses.replace(protocols[task], thresholds=thresholds)
                rows[task].append(count_boundaries(maps[task], truth, protocol).row)
    found = dense_run.metrics
    for name in ("mae", "s_measure", "weighted_f", "adaptive_f", "adaptive_e"):
        mean = np.mean([getattr(one, name) for one in saliency])
        assert found[f"{split}/saliency/{name}"] == pytest.approx(mean)
    precision, recall = (
        np.mean([getattr(one.curves, name) for one in saliency], axis=0)
        for name in ("precision", "recall")
    )
    f = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-30)
    assert found[f"{split}/saliency/max_f"] == pytest.approx(f.max())
    for task, counted in rows.items():
        summary = summarize_boundaries(counted)
        for name in LINE_SCORES:
            assert found[f"{split}/{task}/{name}"] == pytest.approx(getattr(summary, name))


def test_evaluation_finds_the_numbers_again(dense_run):
    found = foveal.evaluate(dense_run, batch_size=1)
    assert found.scores == {k: v for k, v in dense_run.metrics.items() if k.startswith("test/")}
    assert (found.pictures, found.remarks) == (4, ())


def test_validation_looks_once_and_the_test_as_asked_for(dense_config):
    inference = InferenceConfig(
        saliency_scales=(0.5,), edge_scales=(0.5, 2.0), skeleton_scales=(1.5,), tile=20
    )
    assert once(inference) == InferenceConfig(tile=20)
    assert once(dense_config.inference) == dense_config.inference


@pytest.fixture
def joint_setup(dense_config, three):
    return make_setup(dataclasses.replace(dense_config, data=three))


def test_three_sets_train_together(dense_config, three, joint_setup):
    """Batches hold pictures of all sets, each with its own label and no other."""
    assert joint_setup.tasks == joint_setup.config.tasks == DENSE_TASKS
    assert {s: joint_setup.size(s) for s in ("train", "val", "test")} == {
        "train": 15,
        "val": 6,
        "test": 7,
    }
    data = joint_setup.config.data
    assert [data.of(task).layout for task in DENSE_TASKS] == ["pairs", "bsds500", "pairs"]
    task = joint_setup.task()
    seen = []
    for x, targets, index in task.loader:
        assert x.shape == (5, 3, 32, 32)
        assert list(targets) == list(DENSE_TASKS)
        for k, place in enumerate(index.tolist()):
            own = "saliency" if place < 6 else "edge" if place < 10 else "skeleton"
            seen.append(own)
            for name in DENSE_TASKS:
                assert targets[name].shape == (5, 1, 32, 32)
                assert bool((targets[name][k] >= 0).any()) == (name == own)
    assert {name: seen.count(name) for name in DENSE_TASKS} == dict.fromkeys(DENSE_TASKS, 5)
    assert task.training_loss((x, targets, index)).isfinite()


def test_a_step_on_three_sets_and_all_scores(dense_config, three):
    run = foveal.train(dataclasses.replace(dense_config, data=three, max_steps=1))
    assert {f"test/{name}" for name in SCORES} <= run.metrics.keys()
    assert not any(math.isnan(value) for value in run.metrics.values())
    assert foveal.evaluate(run, split="val").scores.keys() == {f"val/{name}" for name in SCORES}


def test_each_annotator_reaches_the_scores(joint_setup):
    people = []
    for _, truths, _ in joint_setup.evaluation_loader("train"):
        people += [t["edge"].shape[0] for t in truths if "edge" in t]
    assert people == [1, 2, 3, 1]
    shares = set()
    for index in range(6, 10):
        shares |= set(np.unique(joint_setup.splits["train"].load(index)[1]["edge"]).tolist())
    assert sorted(shares) == pytest.approx([0, 1 / 3, 1 / 2, 2 / 3, 1])


@pytest.mark.parametrize("tasks", [("edge",), ("saliency", "skeleton")])
def test_any_subset_of_tasks(dense_config, three, tasks):
    """Of one folder with all maps, or of those that have a root."""
    chosen = dataclasses.replace(dense_config, tasks=tasks)
    sets = {task: three.of(task).root for task in tasks}
    for config in (chosen, with_sets(dense_config, **sets)):
        setup = make_setup(config)
        assert setup.tasks == setup.classes == setup.model.tasks == setup.config.tasks == tasks
        task = setup.task()
        _, targets, _ = batch = next(iter(task.loader))
        assert tuple(targets) == tasks
        assert task.training_loss(batch).isfinite()
        assert tuple(task.scores.of_task) == tasks


def test_a_root_beside_the_common_one(dense_config, three, discs, joint_setup):
    """Edges from a set of their own, all other maps from the common one."""
    data = dataclasses.replace(three, root=str(discs), saliency=Set(), skeleton=Set())
    setup = make_setup(dataclasses.replace(dense_config, data=data))
    assert setup.splits["train"].set_tasks == (("saliency", "skeleton"), ("edge",))
    assert setup.splits["train"].sizes == (8, 4)


def test_ratios_reach_the_batches(dense_config, three):
    data = dataclasses.replace(
        three,
        saliency=dataclasses.replace(three.saliency, ratio=3.0),
        skeleton=dataclasses.replace(three.skeleton, ratio=1.0),
    )
    setup = make_setup(dataclasses.replace(dense_config, data=data))
    batches = list(setup.batches("train", shuffle=True))
    for batch in batches:
        places = [index for _, index in batch]
        of_saliency = sum(place < 6 for place in places)
        assert (of_saliency, sum(6 <= place < 10 for place in places)) == (3, 1)


def test_of_pictures_for_several_tasks_the_largest_ratio_counts(dense_config, three, discs):
    data = dataclasses.replace(
        three, root=str(discs), batch_size=4, saliency=Set(ratio=0.5), skeleton=Set(ratio=3.0)
    )
    setup = make_setup(dataclasses.replace(dense_config, data=data))
    for batch in setup.batches("train", shuffle=True):
        assert sum(index < 8 for _, index in batch) == 3


def test_sums_per_image_are_pixels_times_means(dense_config):
    """Of pictures that fill their crops: one for each of the 32 x 32 pixels."""
    found = {}
    for reduction in ("mean", "sum_per_image"):
        config = dataclasses.replace(
            dense_config,
            tasks=("saliency",),
            loss_args={"reduction": reduction},
            augment=dataclasses.replace(dense_config.augment, rotate=0.0, min_scale=1.0),
        )
        torch.manual_seed(0)
        task = make_setup(config).task()
        found[reduction] = task.training_loss(next(iter(task.loader))).item()
    assert found["sum_per_image"] == pytest.approx(32 * 32 * found["mean"], rel=1e-5)


def test_lines_learn_from_side_maps_too(dense_config):
    setup = make_setup(dataclasses.replace(dense_config, loss_args={"side_weight": 0.25}))
    task = setup.task()
    x, targets, _ = batch = next(iter(task.loader))
    task.model.eval()  # the same numbers twice
    outputs = task.model(x, sides=True)
    assert {name: len(several) for name, several in outputs.items()} == {
        "saliency": 1,
        "edge": 1 + len(outputs["edge"][1:]),
        "skeleton": len(outputs["edge"]),
    }
    assert len(outputs["edge"]) > 2
    whole = task.loss(outputs, targets)
    fused = task.loss({name: several[:1] for name, several in outputs.items()}, targets)
    sides = sum(
        task.loss.terms[name](side, targets[name])
        for name in ("edge", "skeleton")
        for side in outputs[name][1:]
    )
    torch.testing.assert_close(whole - fused, 0.25 * sides)
    task.model.train()
    assert task.training_loss(batch).requires_grad


def test_frozen_norms_of_a_checkpoint_stay_as_they_were(dense_config, dense_run, tmp_path):
    """A step changes other weights, but neither statistics nor factors of the backbone's norms."""
    start = tmp_path / "start.pt"
    torch.save(load_file(dense_run.path / "best.safetensors"), start)
    config = dataclasses.replace(
        dense_config, checkpoint=str(start), model_args={"frozen_norm": True}, max_steps=1, lr=0.01
    )
    run = foveal.train(config)
    before, after = torch.load(start), load_file(run.path / "best.safetensors")
    norms = [key.removesuffix("running_mean") for key in before if key.endswith("running_mean")]
    assert norms
    for key, value in before.items():
        if key.startswith(tuple(norms)):
            assert torch.equal(after[key], value), key
    assert not torch.equal(
        after["backbone.model.conv1.weight"], before["backbone.model.conv1.weight"]
    )


def test_a_checkpoint_of_the_backbone_alone(dense_config, tmp_path):
    """Weights of the classification network go into the backbone; the heads stay random."""
    trunk = foveal.create_model("test_efficientnet", num_classes=7)
    torch.save(trunk.state_dict(), tmp_path / "trunk.pt")
    config = dataclasses.replace(
        dense_config,
        backbone="test_efficientnet",
        backbone_args={},
        checkpoint=str(tmp_path / "trunk.pt"),
    )
    found = dict(make_setup(config).model.backbone.named_parameters())
    (key,) = [k for k in found if k.endswith("conv_stem.weight")]
    assert torch.equal(found[key], trunk.conv_stem.weight)


def test_a_run_goes_on_where_it_stopped(dense_config, three, tmp_path, monkeypatch):
    """Bit for bit in the middle of an epoch, averaged weights included."""
    scores = MapScoresConfig(thresholds=1, val_thresholds=1)
    config = dataclasses.replace(dense_config, data=three, scores=scores, ema=True, ema_decay=0.9)
    whole = foveal.train(dataclasses.replace(config, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        plain = SaveRun.on_train_batch_end

        def stop(self, trainer, module, outputs, batch, batch_idx):
            self.interrupted = batch_idx == 1 and trainer.current_epoch == 1
            plain(self, trainer, module, outputs, batch, batch_idx)

        patch.setattr(SaveRun, "on_train_batch_end", stop)
        with pytest.raises(RunInterrupted):
            foveal.train(config)
    torch.rand(3)  # whatever happens between the two
    workers = dataclasses.replace(three, workers=1)
    stopped = foveal.train(dataclasses.replace(config, data=workers), resume=True)
    assert stopped.metrics == whole.metrics
    assert (stopped.path / "metrics.csv").read_text() == (whole.path / "metrics.csv").read_text()
    one, two = (load_file(run.path / "best.safetensors") for run in (whole, stopped))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    states = [
        torch.load(run.path / "last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, stopped)
    ]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.fixture
def copied(paint_discs, tmp_path):
    """Return pictures that may be changed."""
    return paint_discs(tmp_path / "data", counts=(4, 2, 2))


def spoiled(root, how):
    image, line = root / "train" / "images" / "1.png", root / "train" / "edge" / "1.png"
    if how == "picture":
        image.write_bytes(b"no picture")
        return image
    if how == "map":
        line.write_bytes(b"no picture")
    elif how == "size":
        Image.new("L", (9, 9)).save(line)
    else:
        Image.new("RGB", (36, 36), (200, 10, 10)).save(line)
    return line


@pytest.mark.parametrize("how", ["picture", "map", "size", "colours"])
def test_what_does_not_fit_is_skipped_where_that_is_wanted(dense_config, copied, replaced, how):
    path = spoiled(copied, how)
    setup = make_setup(replaced(dense_config, root=str(copied), on_error="skip"))
    assert setup.size("train") == 3
    (complaint,) = setup.left_out
    assert path.name in complaint


@pytest.mark.parametrize("how", ["picture", "map", "size"])
def test_what_does_not_fit_stops_the_run_before_it_begins(dense_config, copied, replaced, how):
    spoiled(copied, how)
    with pytest.raises(ValueError, match=r"1\.png.*\(1 of 4 pictures cannot be used") as error:
        foveal.train(replaced(dense_config, root=str(copied)))
    assert "\n" not in str(error.value)
    assert not (copied.parent / "run" / "last.ckpt").exists()


def test_maps_that_would_end_the_test_are_found_before_training(dense_config, copied, replaced):
    """Their values, which a look at headers does not show."""
    Image.new("RGB", (36, 36), (200, 10, 10)).save(copied / "test" / "skeleton" / "0.png")
    with pytest.raises(ValueError, match=r"skeleton/0\.png.* has colours .*1 of 2 pictures"):
        foveal.train(replaced(dense_config, root=str(copied)))
    assert not (copied.parent / "run" / "last.ckpt").exists()


def test_lines_that_are_nowhere_have_no_score(dense_config, copied, replaced, capsys):
    """The run ends well, and says so; the mean is of the tasks that have a score."""
    for path in copied.glob("*/edge/*.png"):
        with Image.open(path) as stored:
            size = stored.size
        Image.new("L", size).save(path)
    run = foveal.train(replaced(dense_config, root=str(copied), max_steps=1))
    told = "edge: no pictures, or not one pixel is true, so there is no score"
    assert told in capsys.readouterr().out
    written = json.loads((run.path / "metrics.json").read_text())
    assert written["test/edge/ods"] is None
    assert math.isnan(run.metrics["test/edge/ods"])
    others = [run.metrics[f"test/{name}"] for name in ("saliency/max_f", "skeleton/ods")]
    assert run.metrics["test/mean"] == pytest.approx(sum(others) / 2)
    assert foveal.evaluate(run).remarks == (told,)


def test_a_training_that_diverges_is_told_by_its_loss(dense_config):
    config = dataclasses.replace(dense_config, lr=1e6, optimizer="sgd", epochs=3)
    with pytest.raises(
        ValueError, match=r"the training loss became nan in epoch \d: try a lower --lr"
    ) as error:
        foveal.train(config)
    assert "\n" not in str(error.value)


def test_numbers_that_are_none_are_counted_and_told(dense_run, dense_config):
    setup = make_setup(dense_run.config, dense_run.load(), ["test"])
    task = setup.task(training=False)
    with torch.no_grad():
        task.model.decoder.predictors["edge"].fuse.bias.fill_(math.nan)
        task._inference = setup.config.inference
        for batch in setup.evaluation_loader("test"):
            task.update_scores(batch)
    assert task.scores.compute()["edge/ods"] == 0
    assert task.remarks() == ("edge: 4 maps with values that are not numbers",)


def changed(config, **changes):
    own = {f.name for f in dataclasses.fields(config.data)}
    data = {key: value for key, value in changes.items() if key in own}
    rest = {key: value for key, value in changes.items() if key not in own}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data), **rest)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "spnet"}, "unknown model of `foveal train dense` 'spnet'"),
        ({"model": "dfy"}, "unknown model of `foveal train dense` 'dfy': did you mean 'dfi'"),
        (
            {"model": "resnet18"},
            "resnet18 names whole pictures: give it as --backbone, and --model",
        ),
        ({"model_args": {"tasks": ["edge"]}}, "model_args.tasks is --tasks: give it there"),
        ({"model_args": {"backbone": "x"}}, "model_args.backbone is --backbone"),
        ({"model_args": {"selekted": 2}}, "selekted"),
        ({"backbone": "test_vit", "backbone_args": {}}, "dfi needs maps of several strides|stride"),
        ({"loss": "cross_entropi"}, "unknown loss of dense tasks 'cross_entropi': did you mean"),
        ({"loss": "ohem_cross_entropy"}, "unknown loss of dense tasks 'ohem_cross_entropy'"),
        (
            {"loss_args": {"edge_wieght": 1.0}},
            "unknown argument of the loss balanced_cross_entropy 'edge_wieght': did you mean 'edge",
        ),
        ({"loss_args": {"reduction": 3}}, "loss_args.reduction must be a word, not 3"),
        ({"loss_args": {"edge_weight": "x"}}, "loss_args.edge_weight must be a number, not 'x'"),
        ({"loss_args": {"threshold": 1.5}}, r"threshold must lie in \[0, 1\), not 1.5"),
        ({"layout": "camvid"}, "layout 'camvid' is not of `foveal train dense`: did you mean `fov"),
        ({"root": "/nowhere/discs"}, "there is no folder or file /nowhere/discs"),
        ({"checkpoint": "/nowhere/x.pt"}, "/nowhere/x.pt"),
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm': did you mean"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(dense_config, changes, sentence):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=sentence) as error:
        foveal.train(changed(dense_config, **changes))
    assert "\n" not in str(error.value)


def test_a_task_without_pictures_is_told(dense_config, three):
    sets = {"saliency": three.saliency.root, "edge": three.edge.root}
    config = dataclasses.replace(with_sets(dense_config, **sets), tasks=DENSE_TASKS)
    sentence = r"data\.skeleton\.root is missing: say where the pictures for skeleton are, or leave"
    with pytest.raises(ValueError, match=sentence):
        make_setup(config)


def test_data_with_other_maps_are_told(dense_config, three, dense_run, tmp_path):
    wrong = with_sets(dense_config, skeleton=three.edge.root)
    with pytest.raises(ValueError, match="BSDS500 layout has no skeleton maps, it is for edge"):
        make_setup(wrong)
    objects = changed(dense_config, root=three.saliency.root, tasks=("edge",))
    with pytest.raises(ValueError, match="no folder of pictures such as images/ beside one of ma"):
        make_setup(objects)


def test_a_network_is_scored_on_what_it_has_learned(dense_config, three, tmp_path):
    config = with_sets(dense_config, saliency=three.saliency.root)
    run = foveal.train(dataclasses.replace(config, max_steps=1))
    model = run.load()
    assert model.classes == ("saliency",)
    for data, sentence in (
        (
            {"edge": Set(root=three.edge.root)},
            "data.edge.root is given, but the network has learned",
        ),
        (
            {"root": three.edge.root, "saliency": Set()},
            "has maps of edge, and the network has learned saliency only",
        ),
    ):
        wrong = changed(dataclasses.replace(run.config, tasks=()), **data)
        with pytest.raises(ValueError, match=sentence):
            make_setup(wrong, model, ["test"])


def test_a_network_of_all_tasks_is_scored_on_what_the_pictures_have(dense_run, three):
    wanted = changed(dataclasses.replace(dense_run.config, tasks=()), root=three.edge.root)
    setup = make_setup(changed(wanted, layout="auto"), dense_run.load(), ["test"])
    assert (setup.tasks, setup.classes) == (("edge",), DENSE_TASKS)
    assert set(setup.task(training=False).scores.of_task) == {"edge"}
    assert setup.size("test") == 2


def test_pictures_to_evaluate_with_are_not_trained_on(dense_config, discs, tmp_path):
    """Nothing but a test part, as of many saliency sets."""
    for folder in ("images", "masks"):
        (tmp_path / "ECSSD" / folder).mkdir(parents=True)
    for k in range(3):
        for folder, source in (("images", "images"), ("masks", "saliency")):
            with Image.open(discs / "test" / source / f"{k}.png") as stored:
                stored.save(tmp_path / "ECSSD" / folder / f"{k}.png")
    config = with_sets(dense_config, saliency=tmp_path / "ECSSD")
    with pytest.raises(ValueError, match=r"ECSSD: there are no training pictures .* `foveal eval`"):
        make_setup(config)


def test_scenes_are_what_there_is_without_a_root(dense_config):
    setup = make_setup(changed(dense_config, root=None, image_size=None), splits=["train"])
    assert setup.config.data.layout == "scenes"
    assert setup.config.data.image_size == 128
    assert setup.splits["train"].set_tasks == (DENSE_TASKS,)


def test_scores_are_set_by_the_run(dense_config):
    config = dataclasses.replace(dense_config, scores=MapScoresConfig(min_max=False, thresholds=7))
    task = make_setup(config).task(training=False)
    assert task.scores.compute()["saliency/min_max"] == 0
    assert task.monitor == "mean"


def test_whole_pictures_come_in_small_batches(dense_config, replaced):
    setup = make_setup(replaced(dense_config, batch_size=7))
    assert [x.shape[0] for x, _, _ in setup.task().loader] == [7]
    assert [len(pictures) for pictures, _, _ in setup.evaluation_loader("train")] == [4, 4]
