"""Everything combines: each pair of choices is built, trained for a step and evaluated once.

A choice is a change to the config. A new backbone family or loss joins by being registered; a new
attention, task or way of training is a line in ``FACTORS`` (and a task's data in ``data``).
"""

import itertools
import re

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from PIL import Image

from foveal.config import (
    DENSE_TASKS,
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    DenseAugmentConfig,
    DenseConfig,
    DenseDataConfig,
    Insertion,
    MapScoresConfig,
    SegmentAugmentConfig,
    SegmentConfig,
)
from foveal.losses import LOSSES
from foveal.models import TASK_NETWORKS, list_models
from foveal.tasks import make_setup
from foveal.tasks.hardware import trainer_arguments
from foveal.tasks.progress import quiet_lightning

SIDE = 64
CLASSES = ("disc", "bars", "noise")


def smallest_of_each_family():
    """Return one of foveal's own backbones per family: the names that differ in numbers only."""
    families = {}
    others = (*TASK_NETWORKS, *list_models("deepvit*"))
    names = [name for name in list_models(task="classify") if name not in others]
    for name in sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        families.setdefault(re.sub(r"\d+", "", name), name)
    return sorted(families.values())


TIMMS = (
    "test_resnet",
    "test_efficientnet",
    "test_convnext",  # LayerNorm
    "test_nfnet",  # no normalisation
    "test_vit",
)

RE_ATTENTION = "re-attention"
TRANSFORMERS = ("test_vit", "deepvit")
DEEPVIT = {"img_size": SIDE, "patch_size": 16, "embed_dim": 24, "num_heads": 2, "depth": 4}
# Transformers pass tokens on; the other is too small to have a shortcut.
NO_BLOCKS = (*TRANSFORMERS, "test_efficientnet")

SEGMENT = ("deeplabv3", "lraspp")
DENSE = ("dfi",)
PIXELS = (*SEGMENT, *DENSE)
NO_BACKBONES = ("small pictures", "activation maps", "bottleneck")
# What augmentation there is of pixels, under the names of classification's.
SEGMENT_AUGMENTATION = {
    "none": SegmentAugmentConfig(min_scale=1.0, max_scale=1.0, rotate=0.0, blur=0.0, hflip=0.0),
    "much": SegmentAugmentConfig(),
}
DENSE_AUGMENTATION = {
    "none": DenseAugmentConfig(min_scale=1.0, max_scale=1.0, rotate=0.0, hflip=0.0),
    "much": DenseAugmentConfig(),
}
# Its two losses, under the names of others.
DENSE_LOSSES = {"cross_entropy": "cross_entropy", "class weights": "balanced_cross_entropy"}

FACTORS = {
    "task": {
        "classify": {},
        "several labels": {"multi_label": True},
        "deeplabv3": {},  # the task segment, as the next
        "lraspp": {},
        "dfi": {},  # the task dense
    },
    "backbone": {
        **{name: {"model": name} for name in (*smallest_of_each_family(), *TIMMS)},
        "small pictures": {
            "model": "mobilenetv2_050_coordinate",
            "model_args": {"stem_stride": 1, "stages": 3, "drop_path_rate": 0.1},
        },
        "grey": {"model": "mobilenetv2_050_coordinate", "model_args": {"in_chans": 1}},
        "activation maps": {
            "model": "activation_classifier",
            "backbone": "mobilenetv2_050_coordinate",
        },
        "bottleneck": {
            "model": "bottleneck_classifier",
            "backbone": "mobilenetv2_050_coordinate",
        },
        "sandglass": {"model": "mobilenetv2", "model_args": {"block": "sandglass"}},
        "deepvit": {"model": "deepvit", "model_args": DEEPVIT},
    },
    "insertion": {
        "nothing inserted": {},
        "coordinate at identity": {
            "insert": (Insertion(layer="coordinate", where="blocks", identity=True),)
        },
        "triplet": {"insert": (Insertion(layer="triplet", where="stages"),)},
        "strip": {"insert": (Insertion(layer="strip", where="stages"),)},
        "mixed": {"insert": (Insertion(layer="mixed", where="stages"),)},
        RE_ATTENTION: {"insert": (Insertion(layer="reattention", where="blocks"),)},
    },
    "loss": {
        "cross_entropy": {},
        "online_label_smoothing": {"loss": "online_label_smoothing"},
        "class weights": {"class_weights": "balanced"},
    },
    "augmentation": {
        "none": {"augment": AugmentConfig(min_scale=1.0, hflip=0.0)},
        "mixup": {"augment": AugmentConfig(mixup=0.4)},
        "much": {"augment": AugmentConfig(cutmix=1.0, erasing=1.0, randaugment=9)},
    },
    "optimisation": {
        "adamw": {"optimizer": "adamw"},
        "momentum": {"optimizer": "momentum", "accumulate": 2, "clip_grad": 1.0, "lr": 0.01},
        "bf16": {"ema": True, "amp": "bf16", "channels_last": False},
    },
}


def possible(case):
    """Tell whether a case means anything.

    Several labels have their own loss. A map layer needs blocks that pass maps on, re-attention
    plain attention. Pixels are not
    mixed; networks for them need maps of stride 16 or 32, and all but one need several maps.
    """
    if case["task"] in DENSE and case["loss"] not in DENSE_LOSSES:
        return False
    if case["task"] in PIXELS:
        fits = case["task"] == "deeplabv3" or case["backbone"] not in TRANSFORMERS
        if case["augmentation"] == "mixup" or case["backbone"] in NO_BACKBONES or not fits:
            return False
    if case["task"] == "several labels" and case["loss"] not in ("cross_entropy", "class weights"):
        return False
    if case["insertion"] == RE_ATTENTION:
        return case["backbone"] == "test_vit"
    return case["insertion"] == "nothing inserted" or case["backbone"] not in NO_BLOCKS


def pairs(case):
    """Return the pairs of choices that a case makes."""
    return set(itertools.combinations(sorted(case.items()), 2))


def covering(cases):
    """Choose cases until each pair occurs: always the first case with most new ones."""
    missing = set().union(*map(pairs, cases))
    chosen = []
    while missing:
        best = max(cases, key=lambda case: len(pairs(case) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


EVERY_CASE = [
    case
    for choice in itertools.product(*FACTORS.values())
    if possible(case := dict(zip(FACTORS, choice, strict=True)))
]
CASES = covering(EVERY_CASE)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return where each task finds its pictures: 8 to train on, 4 to validate with."""
    root = tmp_path_factory.mktemp("combinations")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    lines = []
    for part, count in (("train", 8), ("val", 4)):
        for i in range(count):
            name = CLASSES[i % len(CLASSES)]
            pattern = {
                "disc": rows**2 + columns**2 < 400,
                "bars": columns // 8 % 2 == 0,
                "noise": rng.random((SIDE, SIDE)) < 0.5,
            }[name]
            pixels = rng.integers(0, 128, (SIDE, SIDE, 3)) + 127 * pattern[..., None]
            path = root / part / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            more = ";" + CLASSES[0] if i % 2 else ""
            lines.append(f"{path.relative_to(root)},{name}{more},{part}\n")
    (root / "labels.csv").write_text("path,labels,split\n" + "".join(lines))
    masks = masked_pictures(tmp_path_factory.mktemp("masked"), rng)
    maps = mapped_pictures(tmp_path_factory.mktemp("mapped"), rng)
    return {
        "classify": root,
        "several labels": root / "labels.csv",
        **dict.fromkeys(SEGMENT, masks),
        **dict.fromkeys(DENSE, maps),
    }


def masked_pictures(root, rng):
    """Write pictures with label maps of as many classes, under names for pairs of folders."""
    for part, count in (("train", 8), ("val", 4)):
        for folder in ("images", "masks"):
            (root / part / folder).mkdir(parents=True)
        for i in range(count):
            labels = np.kron(rng.integers(0, len(CLASSES), (4, 4)), np.ones((SIDE // 4, SIDE // 4)))
            pixels = rng.integers(0, 128, (SIDE, SIDE, 3)) + 60 * labels[..., None]
            labels[0] = 255
            for folder, array in (("images", pixels), ("masks", labels)):
                Image.fromarray(array.astype(np.uint8)).save(root / part / folder / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def mapped_pictures(root, rng):
    """Write pictures with maps of all dense tasks: a bright square, its outline, its middle."""
    for part, count in (("train", 8), ("val", 4)):
        for folder in ("images", *DENSE_TASKS):
            (root / part / folder).mkdir(parents=True)
        for i in range(count):
            arrays = {folder: np.zeros((SIDE, SIDE), np.uint8) for folder in DENSE_TASKS}
            top, left = rng.integers(0, SIDE // 2, 2)
            arrays["saliency"][top : top + 24, left : left + 24] = 255
            arrays["edge"][top : top + 24, [left, left + 23]] = 255
            arrays["skeleton"][top + 12, left + 6 : left + 18] = 255
            noise = rng.integers(0, 128, (SIDE, SIDE, 3))
            arrays["images"] = (noise + arrays["saliency"][..., None] // 2).astype(np.uint8)
            for folder, array in arrays.items():
                Image.fromarray(array).save(root / part / folder / f"{i}.png")
    return root


class FiniteGradients(Callback):
    """Fail where a parameter has no gradient, or one that is not finite, in any step."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for key, parameter in pl_module.model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


def test_every_possible_pair_is_tried():
    tried = set().union(*map(pairs, CASES))
    for (factor, choices), (other, others) in itertools.combinations(FACTORS.items(), 2):
        for pair in itertools.product(choices, others):
            wanted = {factor: pair[0], other: pair[1]}
            if any(wanted.items() <= case.items() for case in EVERY_CASE):
                assert pairs(wanted) <= tried, wanted
    assert len(CASES) < 120  # each backbone meets each insertion: about their product


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.values()))
def test_it_trains_a_step_and_evaluates(case, data):
    changes = {}
    for factor, choice in case.items():
        changes |= FACTORS[factor][choice]
    kind = ClassifyConfig
    if case["task"] in PIXELS:
        changes = for_pixels(case, changes)
        kind = SegmentConfig
    if case["task"] in DENSE:
        changes = for_maps(case, changes)
        kind = DenseConfig
    train_a_step(data[case["task"]], changes, kind)


def for_pixels(case, changes):
    """Return the changes where the backbone belongs to a network for pixels."""
    backbone_args = dict(changes.get("model_args", {}))
    stride = 16 if case["backbone"] in TRANSFORMERS else 32
    channels = backbone_args.pop("in_chans", 3)
    return {
        **changes,
        "model": case["task"],
        "model_args": {"output_stride": stride, "in_chans": channels},
        "backbone": changes["model"],
        "backbone_args": backbone_args,
        "augment": SEGMENT_AUGMENTATION[case["augmentation"]],
    }


def for_maps(case, changes):
    """Return the changes of a network for pixels where these have maps of several tasks."""
    own = {
        "model_args": {**changes["model_args"], "width": 16},
        "augment": DENSE_AUGMENTATION[case["augmentation"]],
        "loss": DENSE_LOSSES[case["loss"]],
        "scores": MapScoresConfig(val_thresholds=1),
    }
    return {k: v for k, v in changes.items() if k != "class_weights"} | own


@pytest.mark.parametrize("augmentation", FACTORS["augmentation"])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_every_kind_of_target(name, augmentation, data):
    """A loss sees logits, not the network: one backbone stands for all."""
    changes = {"loss": name, "class_weights": "balanced", "model": "test_resnet"}
    train_a_step(data["classify"], {**changes, **FACTORS["augmentation"][augmentation]})


def train_a_step(root, changes, kind=ClassifyConfig):
    data = DenseDataConfig if kind is DenseConfig else DataConfig
    config = kind(
        data=data(root=str(root), image_size=SIDE, batch_size=4, workers=0),
        epochs=1,
        warmup_epochs=0.0,
        device="cpu",
        **changes,
    )
    torch.manual_seed(0)
    setup = make_setup(config)
    task = setup.task()
    before = {key: value.clone() for key, value in task.model.named_parameters()}
    with quiet_lightning():
        trainer = Trainer(
            **trainer_arguments(config),
            callbacks=[FiniteGradients()],
            max_epochs=1,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.clip_grad or None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(task, val_dataloaders=setup.evaluation_loader("val"))

    assert trainer.global_step == 2 // config.accumulate
    (row,) = task.history
    assert all(np.isfinite(value) for value in row.values()), row
    assert {"train/loss", f"val/{task.monitor}"} <= row.keys()
    for key, value in task.model.named_parameters():
        assert value.isfinite().all(), key
    assert any(not torch.equal(p, before[k]) for k, p in task.model.named_parameters())
