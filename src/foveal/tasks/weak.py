"""From labels of whole pictures to a network that names pixels: the stages of such a run.

Each stage has a folder of its own in the run's: ``classifier/`` (a classify run), ``mining/``,
``labels/``, ``segment/`` (a segment run), and in a second round ``labels_2/`` and ``segment_2/``.
The run's folder itself holds what every run's does, with the weights of its last network.
"""

import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import seed_everything

from foveal.config import STAGES, ClassifyConfig, WeakConfig, task_of
from foveal.data.pictures import DamagedPictureError
from foveal.data.pseudo_labels import LAYOUT as PSEUDO_LABELS
from foveal.data.pseudo_labels import SETTINGS
from foveal.data.weak import WeakData, read_weak
from foveal.files import replacing
from foveal.mining.crf import require_crf
from foveal.tasks.checkpointing import LAST, RunInterrupted
from foveal.tasks.hardware import environment, trainer_arguments
from foveal.tasks.progress import reading_bar
from foveal.tasks.report import write_report
from foveal.tasks.run import (
    CONFIG,
    LABELS,
    METRICS,
    WEIGHTS,
    Run,
    build_model,
    differences,
    labels_of_round,
    open_run,
    read_config,
    run_folder,
    write_config,
    write_json,
    write_text,
)
from foveal.tasks.segment import DEFAULT_IMAGE_SIZE
from foveal.tasks.training import check_unused, new_folder, train
from foveal.tasks.weak_figures import draw_figures
from foveal.tasks.weak_labels import (
    SCORES,
    UNMINED,
    write_labels,
    write_predictions,
)
from foveal.tasks.weak_mining import (
    MinedSplit,
    check_classes,
    check_mined_by,
    mine,
    mined_splits,
    pictures_hash,
)
from foveal.tasks.weak_saliency import open_saliency

TIMES, PICTURES = "stages.json", "pictures.json"

# Which stage a setting is first used in; what is not here is of the segmentation network.
_USED_IN = {
    "data": "classifier",
    "seed": "classifier",
    "max_steps": "classifier",
    "classifier": "classifier",
    "classifier_run": "mining",
    "activation": "mining",
    "mining": "mining",
    "pseudo": "labels",
}
_ONLY_OF_THE_NETWORK = ("data.image_size", "data.batch_size")


def train_weak(config: WeakConfig, *, resume: bool = False) -> Run:
    """Do the stages of a run from image labels, or one of them.

    Args:
        config: what to do.
        resume: go on with the run in ``config.out`` if there is one. A stage other than the first
            always does.

    Returns:
        The run; without metrics as long as stages are missing.

    Raises:
        ValueError: config, data or folder do not fit, or a stage lacks the one before it.
        RunInterrupted: Ctrl-C or SIGTERM; what was done is kept.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "`foveal train weak` runs in one process; several can train the segmentation network "
            "afterwards: `foveal train segment --data.root OUT/labels`"
        )
    trainer_arguments(config)  # complains of a device that is not there
    folder = new_folder(config)
    going_on = (resume or config.stage not in ("all", "classifier")) and (folder / CONFIG).exists()
    if going_on:
        _check_same_run(folder, config)
        if (folder / METRICS).exists():
            print(f"{folder}: this run is finished")
            return open_run(folder)
    else:
        check_unused(folder)
    seed_everything(config.seed, verbose=False)
    run = _WeakRun(config, folder)
    run.open_folder(going_on)
    try:
        run.do_stages(STAGES if config.stage == "all" else (config.stage,))
    except (KeyboardInterrupt, RunInterrupted) as interruption:
        said = f"{interruption}".split(";")[0] or "stopped"
        raise RunInterrupted(f"{said}; {run.how_to_go_on()}") from None
    except BaseException:
        run.close_failed_folder()
        raise
    return open_run(folder)


class _WeakRun:
    """A run from image labels in its folder."""

    def __init__(self, config: WeakConfig, folder: Path) -> None:
        data = read_weak(
            config.data.root,
            config.data.layout,
            labels=config.data.labels,
            domain=config.data.domain,
            val_fraction=config.data.val_fraction,
            test_fraction=config.data.test_fraction,
            split_seed=config.data.split_seed,
        )
        self.left_out: list[str] = []
        if config.data.on_error == "skip":
            data = self._sound(data)
        side = config.data.image_size or data.image_size or DEFAULT_IMAGE_SIZE
        resolved = dataclasses.replace(config.data, layout=data.layout, image_size=side)
        self.config = dataclasses.replace(config, data=resolved)
        self.data, self.folder = data, folder
        self.stage = config.stage
        # What would fail after hours, fails now.
        with torch.device("meta"):
            plain = dataclasses.replace(self.config, pretrained=False, checkpoint=None)
            build_model(plain, data.classes)
        require_crf(config.pseudo.crf)
        if config.classifier_run is not None:
            self._check_classifier(Path(config.classifier_run))
        open_saliency(self.config, data, mined_splits(self.config, data, folder / "mining"))

    @property
    def classifier(self) -> Path:
        """Run folder of the classifier."""
        given = self.config.classifier_run
        return self.folder / "classifier" if given is None else Path(given)

    def open_folder(self, going_on: bool) -> None:
        """Write what is known before the first stage, and say what the data are.

        Raises:
            ValueError: other pictures than those of the run that is gone on with.
        """
        now = {name: pictures_hash(split) for name, split in self.data.splits.items()}
        path = self.folder / PICTURES
        if going_on and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            for name, found in now.items():
                if before[name] != found:
                    raise ValueError(
                        f"--resume: the {name} pictures are not those of the run in {self.folder}: "
                        "bring those back, or choose another --out"
                    )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_config(self.folder, dataclasses.replace(self.config, stage="all"))
        write_json(self.folder / "classes.json", list(self.data.classes))
        write_json(self.folder / "env.json", environment())
        write_json(path, now)
        print(self.data.describe(), flush=True)
        if self.left_out:
            path = self.folder / "skipped.txt"
            write_text(path, "\n".join(self.left_out) + "\n")
            print(f"damaged pictures left out: {len(self.left_out)}, listed in {path}", flush=True)

    def close_failed_folder(self) -> None:
        """Free the folder of a run that failed before its first stage had anything."""
        if not any((self.folder / name).exists() for name in _stage_folders()):
            for name in (CONFIG, "classes.json", "env.json", "skipped.txt", PICTURES, TIMES):
                (self.folder / name).unlink(missing_ok=True)

    def how_to_go_on(self) -> str:
        """Return the command that continues this run."""
        stage = "" if self.stage == "all" else f" --stage {self.stage}"
        config = self.folder / CONFIG
        return f"go on with: foveal train --config {config} --out {self.folder}{stage} --resume"

    def do_stages(self, stages: tuple[str, ...]) -> None:
        """Do some stages, each after the one before it is finished.

        Raises:
            ValueError: the one before it is not.
        """
        work: dict[str, Callable[[], None]] = {
            "classifier": self._train_classifier,
            "mining": self._mine,
            "labels": self._write_labels,
            "segment": self._train_networks,
        }
        for stage in stages:
            for earlier in STAGES[: STAGES.index(stage)]:
                if not self._is_finished(earlier):
                    raise ValueError(
                        f"--stage {stage} needs the stage {earlier}, which is not finished in "
                        f"{self.folder}: do that first, or all by --stage all"
                    )
            if self._is_finished(stage):
                print(f"stage {stage}: finished before", flush=True)
                continue
            print(f"stage {stage}", flush=True)
            start = time.monotonic()
            try:
                work[stage]()
            finally:
                self._write_time(stage, time.monotonic() - start)
            print(f"stage {stage}: done in {time.monotonic() - start:.0f} s", flush=True)
        if self._is_finished("segment"):
            self._finish()

    def _is_finished(self, stage: str) -> bool:
        if stage == "classifier":
            return (self.classifier / METRICS).is_file()
        if stage == "mining":
            splits = mined_splits(self.config, self.data, self.folder / "mining")
            return all(split.done == split.batches for split in splits.values())
        if stage == "labels":
            return (self.folder / LABELS / SETTINGS).is_file()
        return (self._network(self.config.rounds) / METRICS).is_file()

    def _write_time(self, stage: str, seconds: float) -> None:
        path = self.folder / TIMES
        times = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        before = times.get(stage, {}).get("seconds", 0.0)
        times[stage] = {"seconds": before + seconds, "finished": self._is_finished(stage)}
        if stage == "mining" and times[stage]["finished"]:
            splits = mined_splits(self.config, self.data, self.folder / "mining")
            times[stage]["forwards_per_picture"] = {
                name: split.forwards() / split.pictures
                for name, split in splits.items()
                if split.pictures
            }
        write_json(path, times)

    # The stages

    def _train_classifier(self) -> None:
        out = self.folder / "classifier"
        train(self.config.classify_config(str(out)), resume=True)

    def _mine(self) -> None:
        mine(self.config, self.data, self.classifier, self.folder / "mining")

    def _write_labels(self) -> None:
        splits = mined_splits(self.config, self.data, self.folder / "mining")
        folder = self.folder / LABELS
        check_mined_by(self.classifier, self.folder / "mining")
        write_labels(self.config, self.data, splits, self.classifier, folder)
        shutil.copyfile(folder / UNMINED, self.folder / UNMINED)
        lines = (folder / UNMINED).read_text(encoding="utf-8").splitlines()[1:]
        if lines:
            pictures = len({line.rpartition(",")[0] for line in lines})
            print(
                f"nothing was mined for {len(lines)} of {self._pairs(splits)} classes of pictures, "
                f"in {pictures} pictures, listed in {self.folder / UNMINED}",
                flush=True,
            )
            if 2 * len(lines) > self._pairs(splits):
                print(
                    "that is most of them: the classifier sees its classes nowhere; train it "
                    "longer, or look at its test/map",
                    flush=True,
                )
        for split, tables in self._mined_scores().items():
            found = {key: tables["scores"][key] for key in ("seed_miou", "mined_miou")}
            shown = "  ".join(f"{split}/{key} {value:.4f}" for key, value in found.items())
            print(shown, flush=True)

    def _pairs(self, splits: dict[str, MinedSplit]) -> int:
        """Return how many classes the mined pictures show, each in each picture."""
        shown = (self.data.splits[name].targets[: own.pictures] for name, own in splits.items())
        return sum(int(targets.sum()) for targets in shown)

    def _train_networks(self) -> None:
        for number in range(1, self.config.rounds + 1):
            labels = labels_of_round(self.folder, number)
            if not (labels / SETTINGS).is_file():
                splits = mined_splits(self.config, self.data, self.folder / "mining")
                counts = {name: split.pictures for name, split in splits.items()}
                before = self._network(number - 1)
                write_predictions(self.config, self.data, counts, before, labels)
            out = str(self._network(number))
            train(self.config.segment_config(str(labels), PSEUDO_LABELS, out), resume=True)

    def _network(self, number: int) -> Path:
        return self.folder / ("segment" if number == 1 else f"segment_{number}")

    # The end

    def _mined_scores(self) -> dict[str, Any]:
        """Return the scores of what was mined, of the splits with masks."""
        found = json.loads((self.folder / LABELS / SCORES).read_text(encoding="utf-8"))
        tables = {name: own for name, own in found.items() if own["pictures"]}
        if "test" not in self.data.parts and "val" in tables:
            tables["test"] = tables["val"]
        return tables

    def _finish(self) -> None:
        """Make the run's folder one like every run's."""
        network = self._network(self.config.rounds)
        for name in (WEIGHTS, "metrics.csv", LAST):
            with replacing(self.folder / name) as file:
                shutil.copyfile(network / name, file)
        tables = self._mined_scores()
        mined = {
            f"{split}/{key}": math.nan if value is None else value
            for split, own in tables.items()
            for key, value in own["scores"].items()
        }
        metrics = {**open_run(network).metrics, **mined}
        figures_folder = self.folder / "figures"
        figures_folder.mkdir(exist_ok=True)
        splits = mined_splits(self.config, self.data, self.folder / "mining")
        labels = self.folder / LABELS
        figures = draw_figures(self.data, splits, tables, labels, network, figures_folder)
        main = _main_scores(metrics)
        write_report(
            self.folder / "report.html",
            self.config,
            metrics,
            figures,
            cards=main,
            data=self._told(),
            environment=json.loads((self.folder / "env.json").read_text()),
            left_out=self.left_out,
        )
        write_json(self.folder / METRICS, metrics)
        print("  ".join(f"{key} {value:.4f}" for key, value in main.items()))
        print(f"report: {self.folder / 'report.html'}", flush=True)

    def _told(self) -> str:
        """Say what the data are, and how long the stages took."""
        times = json.loads((self.folder / TIMES).read_text(encoding="utf-8"))
        lines = [f"stage {name}: {own['seconds']:.0f} s" for name, own in times.items()]
        unmined = (self.folder / UNMINED).read_text(encoding="utf-8").splitlines()[1:]
        lines.append(f"picture and class pairs for which nothing was mined: {len(unmined)}")
        return "\n".join([self.data.describe(), *lines])

    # Checks

    def _check_classifier(self, path: Path) -> None:
        config = read_config(run_folder(path))
        if not isinstance(config, ClassifyConfig):
            raise ValueError(
                f"classifier_run {path} is a run of {task_of(config)}, where one of classify is "
                "expected"
            )
        if not (path / METRICS).is_file():
            raise ValueError(f"classifier_run {path} is not finished: go on with it by --resume")
        names = tuple(json.loads((path / "classes.json").read_text(encoding="utf-8")))
        check_classes(names, self.data.classes[1:], path)

    def _sound(self, data: WeakData) -> WeakData:
        """Return the data without pictures that do not open."""
        splits = {}
        for name, split in data.splits.items():
            kept = []
            with reading_bar(f"looking at the {name} pictures") as progress:
                for index in range(len(split)):
                    try:
                        split.load(index)
                        kept.append(index)
                    except DamagedPictureError as error:
                        self.left_out.append(str(error))
                    progress(index + 1, len(split))
            splits[name] = split.choose(np.array(kept, np.int64))
        self.left_out = list(dict.fromkeys(self.left_out))
        return dataclasses.replace(data, splits=splits)


def _stage_folders() -> tuple[str, ...]:
    return ("classifier", "mining", "labels", "segment")


def _main_scores(metrics: dict[str, float]) -> dict[str, float]:
    """Return the scores that a summary shows."""
    names = ("miou", "pseudo_miou", "pixel_accuracy", "mined_miou", "seed_miou")
    keys = [f"test/{name}" for name in names]
    keys += ["test/steps_area_spearman", "train/mined_miou", "val/miou", "val/pseudo_miou"]
    return {key: metrics[key] for key in keys if key in metrics}


def _check_same_run(folder: Path, config: WeakConfig) -> None:
    """Do nothing if the run in a folder is this one, as far as its stages have begun.

    Raises:
        ValueError: another setting of a stage that has begun, or a run of another task.
    """
    old = read_config(folder)
    if not isinstance(old, WeakConfig):
        raise ValueError(f"--out {folder} holds a run of {task_of(old)}: choose another")
    begun = [stage for stage in STAGES if (folder / stage).exists()]
    changed = [key for key in differences(old, config) if _stage_of(key) in begun]
    if changed:
        stages = STAGES[min(STAGES.index(_stage_of(key)) for key in changed) :]
        folders = ", ".join(str(folder / stage) for stage in stages if stage in begun)
        raise ValueError(
            f"--resume: the run in {folder} has another {', '.join(changed)}: leave them as they "
            f"were, choose another --out, or delete {folders} to do those stages again"
        )


def _stage_of(key: str) -> str:
    if key in _ONLY_OF_THE_NETWORK:
        return "segment"
    return _USED_IN.get(key.split(".")[0], "segment")
