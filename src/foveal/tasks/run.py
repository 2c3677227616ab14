"""The run folder: what a training leaves behind, and how it is read again."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
import yaml
from safetensors.torch import load_file, save
from torch import nn

from foveal.config import (
    DENSE_TASKS,
    BackboneConfig,
    ClassifyConfig,
    DenseConfig,
    TrainConfig,
    from_dict,
    network_task_of,
    task_of,
    to_dict,
    updated,
)
from foveal.data.transforms import Preprocess, WholePreprocess
from foveal.files import replacing
from foveal.models import TASK_NETWORKS, check_input_size, create_model, list_models
from foveal.models.checkpoints import find_state_dict, load_weights, read_checkpoint
from foveal.names import nearest, unknown
from foveal.surgery import holds_inserted, insert

CONFIG, WEIGHTS, METRICS = "config.yaml", "best.safetensors", "metrics.json"
LABELS = "labels"  # folder of a run from image labels
# What may change between a run and its continuation without changing its result.
FREE_TO_CHANGE = {
    "out",
    "device",
    "threads",
    "tensorboard",
    "data.workers",
    "data.root",
    "sliding.window_batch",
    "inference.bits",
    "stage",
    *(f"data.{task}.root" for task in DENSE_TASKS),
}
# Values that a run replaces by what it found.
RESOLVED_LATER: dict[str, Any] = {
    "data.image_size": None,
    "data.layout": "auto",
    "tasks": [],
    **{f"data.{task}.layout": "auto" for task in DENSE_TASKS},
}


@dataclass(frozen=True)
class Run:
    """A finished (or interrupted) training.

    Attributes:
        path: the run folder.
        metrics: final numbers, ``{"test/accuracy": 0.93, ...}``; empty before the end.
    """

    path: Path
    metrics: dict[str, float]

    @property
    def config(self) -> TrainConfig:
        """The resolved config."""
        return read_config(self.path)

    def load(self) -> nn.Module:
        """Return the network with its best weights, as :func:`load` does."""
        return load(self.path)


def labels_of_round(folder: Path, number: int) -> Path:
    """Return where a run from image labels keeps the labels of its first or a later network."""
    return folder / (LABELS if number == 1 else f"{LABELS}_{number}")


def open_run(path: str | Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: it is none; the message names the nearest sibling that is.
    """
    folder = run_folder(path)
    metrics = folder / METRICS
    found = json.loads(metrics.read_text()) if metrics.exists() else {}
    return Run(folder, {key: math.nan if value is None else value for key, value in found.items()})


def run_folder(path: str | Path) -> Path:
    """Return the path if it holds a run.

    Raises:
        ValueError: it does not.
    """
    folder = Path(path)
    if (folder / CONFIG).is_file():
        return folder
    if not folder.exists() and folder.parent.is_dir():
        siblings = [p.name for p in folder.parent.iterdir() if (p / CONFIG).is_file()]
        close = nearest(folder.name, siblings)
        hint = f": did you mean {folder.parent / close[0]}?" if close else ""
        raise ValueError(f"{folder}: there is no such run{hint}")
    raise ValueError(f"{folder}: this is not a run folder, it has no {CONFIG}")


def read_config(folder: Path) -> TrainConfig:
    """Return the config of a run.

    Raises:
        ValueError: the file does not hold one.
    """
    path = folder / CONFIG
    try:
        return from_dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


_PARTS = {
    "sliding": ("windows, scales and mirror images", "segment"),
    "inference": ("scales and tiles of maps", "dense"),
    "scores": ("how maps are scored", "dense"),
}


def with_part(
    config: TrainConfig, part: str, changes: Mapping[str, Any] | None, run: Path
) -> TrainConfig:
    """Return a config in which something of a part is different.

    Args:
        config: of a run.
        part: name of the field: ``sliding``, ``inference`` or ``scores``.
        changes: fields of that part with their values.
        run: for the message.

    Raises:
        ValueError: runs of this task have no such part, an unknown field, or a wrong value.
    """
    if not changes:
        return config
    if not hasattr(config, part):
        what, task = _PARTS[part]
        raise ValueError(f"{part} ({what}) is of {task} runs, and {run} is of {task_of(config)}")
    new = updated(getattr(config, part), changes, f"{part}.")
    changed: TrainConfig = dataclasses.replace(config, **{part: new})
    return changed


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write ``config.yaml``, ``task`` first."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    write_text(folder / CONFIG, text)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, to_json(value) + "\n")


def to_json(value: Any) -> str:
    """Return JSON; a number that is none, a score of nothing, is null there."""
    return json.dumps(_defined(value), indent=2, ensure_ascii=False, allow_nan=False)


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Return the keys in which two configs would give different results."""
    a, b = (_flatten(to_dict(config)) for config in (old, new))
    free = FREE_TO_CHANGE | {k for k, value in RESOLVED_LATER.items() if b.get(k, "") == value}
    return [k for k in sorted(a.keys() | b.keys()) if k not in free and a.get(k) != b.get(k)]


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def save_weights(
    path: Path,
    model: nn.Module,
    config: TrainConfig,
    classes: Sequence[str],
    pre: Preprocess,
    more: Mapping[str, str] | None = None,
) -> None:
    """Write a network's weights with all that is needed to use them, and ``more`` texts."""
    metadata = {
        **(more or {}),
        "task": task_of(config),
        "model": config.model,
        "model_args": json.dumps(dict(config.model_args)),
        "insert": json.dumps(to_dict(config)["insert"]),
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "preprocess": json.dumps(pre.to_dict()),
    }
    if isinstance(config, BackboneConfig):
        metadata["backbone"] = config.backbone or ""
        metadata["backbone_args"] = json.dumps(dict(config.backbone_args))
    # Clones, because safetensors refuses tensors that share memory (tied weights).
    state = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    with replacing(path) as file:
        file.write_bytes(save(state, metadata))


def load(run: str | Path | Run) -> nn.Module:
    """Return a run's network with its best weights, on the CPU, in eval mode.

    The network has ``.classes`` (tuple of names) and ``.preprocess`` (PIL image -> [C, H, W]); one
    for pixels takes the whole picture at its own size, and has ``.colors`` (RGB of each class).
    The classes of a dense run are its tasks; its network takes whole pictures too, and returns a
    dict task -> logits [B, 1, H, W], of some tasks alone by ``model(x, ["edge"])``.

    Args:
        run: a run folder, or what :func:`foveal.train` returned.

    Raises:
        ValueError: no run there, or one that has no weights yet.

    Example:
        >>> import foveal
        >>> model = foveal.load("runs/demo")                              # doctest: +SKIP
        >>> logits = model(model.preprocess(image)[None])                 # doctest: +SKIP
        >>> model.classes[logits.argmax()]                                # doctest: +SKIP
        'Sandal'
    """
    folder = run_folder(run.path if isinstance(run, Run) else run)
    path = folder / WEIGHTS
    if not path.exists():
        raise ValueError(f"{folder}: this run has no {WEIGHTS} yet: go on with it by --resume")
    config = read_config(folder)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    classes = tuple(json.loads(metadata["classes"]))
    model = build_model(dataclasses.replace(config, pretrained=False, checkpoint=None), classes)
    model.load_state_dict(load_file(path))
    model.classes = classes  # type: ignore[assignment]
    kind = Preprocess if isinstance(config, ClassifyConfig) else WholePreprocess
    preprocess = kind.from_dict(json.loads(metadata["preprocess"]))
    model.preprocess = preprocess  # type: ignore[assignment]
    if "colors" in metadata:
        model.colors = json.loads(metadata["colors"])
    model.metadata = metadata
    return model.eval()


def build_model(config: TrainConfig, classes: Sequence[str]) -> nn.Module:
    """Return the network that a config describes, with the starting weights it asks for.

    Args:
        config: of the run.
        classes: names of its outputs; of a dense network its tasks.

    Raises:
        ValueError: ``model_args`` holds what the run decides, or channels that no picture has, or
            the network is of another task.
    """
    check_model_args(config)
    _check_task(config)
    checkpoint = find_state_dict(read_checkpoint(config.checkpoint)) if config.checkpoint else None
    arguments: dict[str, Any] = dict(config.model_args)
    if isinstance(config, DenseConfig):
        arguments["tasks"] = tuple(classes)
    else:
        arguments["num_classes"] = len(classes)
    if isinstance(config, BackboneConfig):
        if config.backbone is not None:
            arguments["backbone"] = config.backbone
        if config.backbone_args:
            arguments["backbone_args"] = config.backbone_args
        plain = checkpoint is not None and not any(k.startswith("backbone.") for k in checkpoint)
        if plain and config.model in TASK_NETWORKS:
            arguments["backbone_checkpoint"], checkpoint = config.checkpoint, None
    model = create_model(config.model, pretrained=config.pretrained, **arguments)
    # A checkpoint is the plain network's, or of one that had the layers already.
    source = f"the checkpoint {config.checkpoint!r}"
    loads_last = checkpoint is not None and any(
        map(holds_inserted, checkpoint.keys() - model.state_dict().keys())
    )
    if checkpoint is not None and not loads_last:
        load_weights(model, checkpoint, source)
    size = _input_size(config)
    if config.insert and size is not None:
        check_input_size(model, size[-1], size[0])  # it says which size would do
    for insertion in config.insert:
        insert(
            model,
            insertion.layer,
            where=insertion.where,
            identity=insertion.identity,
            input_size=size,
            **insertion.layer_args,
        )
    if checkpoint is not None and loads_last:
        load_weights(model, checkpoint, source)
    return model


def check_model_args(config: TrainConfig) -> None:
    """Do nothing if ``model_args`` holds only what a run may choose.

    Raises:
        ValueError: it holds what the data and the task decide, or channels that no picture has.
    """
    for key in ("name", "pretrained", "num_classes", "checkpoint_path", "features_only"):
        if key in config.model_args:
            raise ValueError(f"model_args.{key} cannot be given: the data and the task decide it")
    elsewhere = {
        "backbone": "backbone",
        "backbone_args": "backbone_args",
        "backbone_checkpoint": "checkpoint",
    }
    if isinstance(config, DenseConfig):
        elsewhere["tasks"] = "tasks"
    for key in elsewhere:
        if key in config.model_args:
            raise ValueError(f"model_args.{key} is --{elsewhere[key]}: give it there")
    if config.model_args.get("in_chans", 3) not in (1, 3):
        raise ValueError(
            "model_args.in_chans must be 1 (grey) or 3 (RGB), "
            f"not {config.model_args['in_chans']!r}"
        )


def _check_task(config: TrainConfig) -> None:
    """Do nothing if the network is one of the config's task."""
    task = network_task_of(config)
    own, _ = TASK_NETWORKS.get(config.model, ("classify", None))
    if own == task:
        _check_backbone(config)
        return
    if task == "classify":
        raise ValueError(f"{config.model} is of another task: did you mean `foveal train {own}`?")
    names = [name for name, (its_task, _) in TASK_NETWORKS.items() if its_task == task]
    if config.model not in TASK_NETWORKS and list_models(
        config.model.split(".")[0] + "*", task="classify"
    ):
        raise ValueError(
            f"{config.model} names whole pictures: give it as --backbone, and --model "
            f"{' or '.join(names)}"
        )
    raise ValueError(unknown(f"model of `foveal train {task_of(config)}`", config.model, names))


def _check_backbone(config: TrainConfig) -> None:
    """Do nothing if nothing is asked of the backbone of a network that has none."""
    if not isinstance(config, BackboneConfig) or config.model in TASK_NETWORKS:
        return
    for key, unset in (("backbone", None), ("backbone_args", {}), ("head_lr_scale", 1.0)):
        if getattr(config, key) != unset:
            raise ValueError(
                f"{key} is for a network on a backbone, such as activation_classifier, and "
                f"{config.model} is one itself: leave it out"
            )


def _input_size(config: TrainConfig) -> tuple[int, int, int] | None:
    """Return (C, H, W) of the run's pictures; None where the network has to say."""
    side = config.data.image_size
    channels = 1 if config.model_args.get("in_chans") == 1 else 3
    return None if side is None else (channels, side, side)
