"""What every task's training has in common, as a LightningModule."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from timm.scheduler import create_scheduler_v2  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from foveal.config import BackboneConfig, TrainConfig
from foveal.data.sampling import TrainingBatches, seed_torch
from foveal.losses import OnlineLabelSmoothing
from foveal.metrics import MapScores

Tensors = tuple[Tensor, ...] | list[Tensor]
POLY_POWER = {"poly": 0.9, "linear": 1.0}


class Task(LightningModule):
    """A network, its loss, its optimisation and its scores.

    Subclasses define :meth:`training_loss`, :meth:`update_scores` and set ``scores``.

    Args:
        config: the run.
        model: the network.
        loss: training loss.
        scores: metric whose ``compute`` returns ``{name: fraction}``.
        monitor: name of the score, larger is better, by which the best weights are chosen.
        batches: sampler of the training batches; None where nothing is trained.
        loader: loader of those batches.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        loss: nn.Module,
        scores: Metric | MapScores,
        *,
        monitor: str,
        batches: TrainingBatches | None = None,
        loader: DataLoader[Any] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.monitor = config, monitor
        self.batches, self.loader = batches, loader
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
        self.model, self.loss, self.scores = model, loss, scores
        self.average = (
            AveragedModel(model, multi_avg_fn=self._average_weights, use_buffers=True)
            if config.ema
            else None
        )
        if self.average is not None:
            self.average.requires_grad_(False)  # or DDP waits for its gradients
        if config.compile:
            self.model.compile()
        self.fingerprint: dict[str, str] = {}  # of the data, for resuming
        self.history: list[dict[str, float]] = []
        self.best_score = -math.inf
        self.improved = False
        self.evaluated: dict[str, float] = {}
        self._loss_sum = torch.zeros((), dtype=torch.float64)
        self._loss_count = 0
        self._rate = config.lr  # of the last step

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is validated, tested and kept: the averaged one with ``ema``."""
        return self.average.module if self.average is not None else self.model

    def forward(self, x: Tensor) -> Any:
        """Return the evaluated network's output for pictures [B, C, H, W]."""
        return self.evaluated_model(x)

    def memory_format(self, x: Tensor) -> Tensor:
        """Return pictures [B, C, H, W] in the memory format of the run."""
        return x.to(memory_format=torch.channels_last) if self.config.channels_last else x

    def training_loss(self, batch: Any) -> Tensor:
        """Return the scalar loss of one batch."""
        raise NotImplementedError

    def update_scores(self, batch: Any) -> None:
        """Add one batch to ``scores``."""
        raise NotImplementedError

    # Optimisation

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        assert self.batches is not None
        return math.ceil(len(self.batches) / self.config.accumulate)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        steps = self.steps_per_epoch * self.config.epochs
        return steps if self.config.max_steps is None else min(steps, self.config.max_steps)

    def make_optimizer(self) -> Optimizer:
        """Return timm's optimiser: biases and norms without weight decay.

        Where the config has a rate of its own for heads, what is not the backbone's gets it.
        """
        config = self.config
        optimizer = create_optimizer_v2(
            self.model,
            opt=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
        )
        backbone = getattr(self.model, "backbone", None)
        if backbone is None or not isinstance(config, BackboneConfig):
            return optimizer
        own = {id(p) for p in backbone.parameters()}
        scales = (1.0, config.head_lr_scale)  # the backbone first: its rate is recorded
        groups = []
        for scale, of_backbone in zip(scales, (True, False), strict=True):
            for group in optimizer.param_groups:
                chosen = [p for p in group["params"] if (id(p) in own) == of_backbone]
                if chosen:
                    # timm's schedules multiply the rate by this.
                    groups.append({**group, "params": chosen, "lr_scale": scale})
        optimizer.param_groups = groups
        return optimizer

    def configure_optimizers(self) -> Any:
        """Return the optimiser and timm's schedule."""
        config = self.config
        optimizer = self.make_optimizer()
        warmup_steps = round(config.warmup_epochs * self.steps_per_epoch)
        # One "epoch" of timm's factory is one optimiser step here.
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="poly" if config.schedule in POLY_POWER else config.schedule,
            num_epochs=self.total_steps,
            decay_rate=POLY_POWER.get(config.schedule, config.decay_rate),
            # timm counts milestones from 1.
            decay_milestones=[m * self.steps_per_epoch + 1 for m in config.milestones],
            warmup_epochs=min(warmup_steps, self.total_steps // 2),
            warmup_lr=config.lr / 100,
            step_on_epochs=False,
            updates_per_epoch=1,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Set the learning rate of the next step."""
        scheduler.step_update(self.global_step)

    def _average_weights(self, averages: Tensors, weights: Tensors, updates: Tensor | int) -> None:
        # The warm-up lets the average forget the random initial weights.
        step = self.global_step
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(averages, weights, updates)

    # Training

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader, set to the batch at which a resumed run goes on.

        Lightning asks for it after it has restored its counters and before it takes the first
        batch. Its own counters then go on from the same batch.
        """
        assert self.batches is not None
        assert self.loader is not None
        epoch_loop = self.trainer.fit_loop.epoch_loop
        done = epoch_loop.batch_progress.current.ready if epoch_loop.restarting else 0
        self.batches.set_epoch(self.current_epoch, start=done)
        return self.loader

    def on_train_start(self) -> None:
        """Keep DDP from sharing buffers before each batch; :meth:`on_validation_epoch_start` does.

        DDP does it in validation too, where a process with one batch more than the others would
        wait for them for ever. And it has given all processes what the first one's losses have
        collected.
        """
        if self.global_rank:
            for loss in self.collecting_losses():
                loss.forget()
        wrapped = self.trainer.strategy.model
        if isinstance(wrapped, DistributedDataParallel):
            wrapped.broadcast_buffers = False

    def on_train_epoch_start(self) -> None:
        """Choose the epoch's order of pictures (not called where an epoch is resumed)."""
        assert self.batches is not None
        self.batches.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make dropout and mixing of this step depend on nothing that came before it."""
        seed_torch(self.config.seed, self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self.training_loss(batch)
        self._loss_sum = self._loss_sum.to(loss.device) + loss.detach().double()
        self._loss_count += 1
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the weights and their average: one state, whenever it is saved."""
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the run after ``max_steps``."""
        if self.config.max_steps is not None and self.global_step >= self.config.max_steps:
            self.trainer.should_stop = True

    @property
    def finished(self) -> bool:
        """Whether the training has come to its end."""
        epochs = len(self.history)
        return epochs > 0 and (epochs == self.config.epochs or self.trainer.should_stop)

    # Evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score one batch."""
        self.update_scores(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Score one batch."""
        self.update_scores(batch)

    def on_validation_epoch_end(self) -> None:
        """Compute ``val/...``."""
        self._finish_scores("val/", self.scores.compute())

    def on_test_epoch_end(self) -> None:
        """Compute ``test/...``."""
        self._finish_scores("test/", self.test_scores())

    def test_scores(self) -> dict[str, float]:
        """Return the scores of the test; a task may have more there than in validation."""
        scores: dict[str, float] = self.scores.compute()
        return scores

    def main_scores(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the scores that a summary shows: not those of parts, such as of each class.

        Args:
            scores: ``{"test/miou": ..., "test/iou/sky": ...}``.
        """
        return {name: value for name, value in scores.items() if name.count("/") == 1}

    def remarks(self) -> tuple[str, ...]:
        """Return sentences that a reader of the last scores should know."""
        return ()

    def _finish_scores(self, prefix: str, scores: dict[str, float]) -> None:
        self.evaluated = {prefix + name: value for name, value in scores.items()}
        # Every rank holds the same numbers already: the metric's states were gathered.
        self.log_dict(self.evaluated, rank_zero_only=False, sync_dist=False)

    def on_validation_epoch_start(self) -> None:
        """Forget the previous evaluation's pictures; give all processes the first one's buffers.

        A process's averages of BatchNorm are those of its own pictures, and the first process
        writes the file of weights.
        """
        self.scores.reset()
        if self.trainer.world_size > 1:
            networks = [self.model, *([] if self.average is None else [self.average])]
            for buffer in (b for network in networks for b in network.buffers()):
                torch.distributed.broadcast(buffer, src=0)

    def on_test_epoch_start(self) -> None:
        """Forget the previous evaluation's pictures."""
        self.scores.reset()

    # Records

    def on_train_epoch_end(self) -> None:
        """Add a line to the history and see whether these weights are the best so far."""
        loss = self._mean_loss()
        if not math.isfinite(loss):
            raise ValueError(
                f"the training loss became {loss} in epoch {self.current_epoch + 1}: "
                f"try a lower --lr than {self.config.lr:g}, --clip_grad 1 or --amp no"
            )
        rate = self._rate
        self.log_dict({"train/loss": loss, "lr": rate}, rank_zero_only=False, sync_dist=False)
        score = self.evaluated[f"val/{self.monitor}"]
        score = -math.inf if math.isnan(score) else score  # nothing to score on
        self.improved = score > self.best_score or not self.history
        self.best_score = max(score, self.best_score)
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "step": self.global_step,
                "lr": rate,
                "train/loss": loss,
                **self.evaluated,
            }
        )
        for collecting in self.collecting_losses():
            collecting.next_epoch()

    def collecting_losses(self) -> list[OnlineLabelSmoothing]:
        """Return the parts of the loss that collect what the network says over an epoch."""
        return [part for part in self.loss.modules() if isinstance(part, OnlineLabelSmoothing)]

    def _mean_loss(self) -> float:
        mean = self._loss_sum / max(self._loss_count, 1)
        mean = self.trainer.strategy.reduce(mean, reduce_op="mean")
        self._loss_sum, self._loss_count = torch.zeros((), dtype=torch.float64), 0
        return mean.item()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the records, so that a resumed run has the whole history."""
        checkpoint["foveal"] = {
            "history": self.history,
            "best_score": self.best_score,
            "loss_sum": self._loss_sum,
            "loss_count": self._loss_count,
            "finished": self.finished,
            "data": self.fingerprint,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the records."""
        records = checkpoint["foveal"]
        self.history, self.best_score = records["history"], records["best_score"]
        self._loss_sum, self._loss_count = records["loss_sum"], records["loss_count"]
