"""Prototypes of all classes, kept over the steps of a training."""

from typing import Literal

import torch
from torch import Tensor, nn

from foveal.adaptation.items import labels_at
from foveal.adaptation.processes import Group, sum_over_processes
from foveal.adaptation.prototypes import class_sums, divided, ema_update
from foveal.names import unknown

_STARTS = ("first_seen", "random")


class PrototypeBank(nn.Module):
    """A moving average of each class's mean feature.

    Over several processes sums and weights are added up before they are divided, so that all have
    the prototypes that one process would have of the joined batch.

    Source: official code of NOUN (Hu et al. 2021), which starts as ``random``; ``first_seen`` is
    foveal's.

    Args:
        num_classes: C.
        dim: D, width of a feature.
        momentum: share of the old prototype. Where a class is in few batches, 0.9 or more.
        init: ``first_seen``: 0, and a class takes its first mean whole; ``random``: standard-normal
            noise, averaged from the second update on, to replay the official code.
        ignore_index: the label that belongs to no class.
        process_group: of several processes; None: all.

    Attributes:
        prototypes: [C, D].
        initialized: which classes can be used, bool [C].
        num_updates: int64 [].

    Raises:
        ValueError: a number out of range or an unknown start.
    """

    prototypes: Tensor
    initialized: Tensor
    num_updates: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        momentum: float = 0.5,
        init: Literal["first_seen", "random"] = "first_seen",
        ignore_index: int = -1,
        process_group: Group = None,
    ) -> None:
        super().__init__()
        if init not in _STARTS:
            raise ValueError(unknown("start of prototypes", str(init), _STARTS))
        if min(num_classes, dim) < 1:
            raise ValueError(
                f"num_classes and dim must be at least 1, and are {num_classes} and {dim}"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], not {momentum}")
        self.momentum, self.init, self.ignore_index = momentum, init, ignore_index
        self.process_group = process_group
        random = init == "random"
        start = torch.randn(num_classes, dim) if random else torch.zeros(num_classes, dim)
        self.register_buffer("prototypes", start)
        self.register_buffer("initialized", torch.full((num_classes,), random))
        self.register_buffer("num_updates", torch.tensor(0))

    @torch.no_grad()
    def update(self, features: Tensor, weights_or_labels: Tensor) -> None:
        """Move the prototypes towards the means of a batch; classes that are not in it stay.

        Args:
            features: [n, D] or [B, D, h, w].
            weights_or_labels: labels int64 [n] or [B, H, W] of any size, of which each cell of the
                features takes the nearest pixel's; or soft weights [n, C] or [B, C, h, w].

        Raises:
            ValueError: shapes that do not fit, or a label that is no class.
        """
        classes, dim = self.prototypes.shape
        if features.ndim in (2, 4) and features.shape[1] != dim:
            raise ValueError(
                f"features must be {dim} wide, as the prototypes are, and are "
                f"{list(features.shape)}"
            )
        if not weights_or_labels.is_floating_point():
            weights_or_labels = labels_at(weights_or_labels, features)
        sums, weight = class_sums(features, weights_or_labels, classes, self.ignore_index)
        both = sum_over_processes(torch.cat([sums, weight[:, None]], 1), self.process_group)
        sums, weight = both[:, :-1], both[:, -1]
        policy: Literal["first_seen", "always"] = "first_seen"
        if self.init == "random":
            policy = "always"
            weight = weight * (self.num_updates > 0)  # the official code's first step has the noise
        prototypes, initialized = ema_update(
            self.prototypes, divided(sums, weight), weight, self.momentum, self.initialized, policy
        )
        self.prototypes.copy_(prototypes)
        self.initialized.copy_(initialized)
        self.num_updates.add_(1)

    def extra_repr(self) -> str:
        """Return the arguments."""
        classes, dim = self.prototypes.shape
        return f"{classes}, {dim}, momentum={self.momentum}, init={self.init!r}"
