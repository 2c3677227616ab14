"""Object-adaptive region mining: each (picture, class) pair is mined for as long as it lasts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from foveal.config import MiningConfig
from foveal.explanation import normalized
from foveal.explanation.class_activation import enlarged
from foveal.mining.erasing import dilate, erase, feature_mask
from foveal.mining.label_maps import enumerate_pairs
from foveal.mining.looking import check_outputs, looking, wide
from foveal.mining.modulator import Modulator
from foveal.mining.result import AREA, EMPTY, EXHAUSTED, MAX_STEPS, MiningResult

# On a CPU large batches are slower than several small ones: a network's maps no longer fit the
# cache, and their memory is asked from the system anew for each layer (benchmarks/mining.py).
_CPU_PIXELS = 160_000

_OF_THE_MODULATOR = ("mode", "keep", "statistic", "top_k")


@dataclass(eq=False)
class MiningState:
    """Where mining stands: the fields of :class:`foveal.mining.MiningResult`, and some of its own.

    Attributes:
        images: [N, C, H, W].
        num_classes: columns of the labels.
        active: pairs that go on, boolean [P].
        first: their statistic in the first step, [P].
        seeds: activations of the first step, [N, C, h, w], or None.
        features: of the pictures, once they are needed for feature erasing.
    """

    images: Tensor
    num_classes: int
    pairs: Tensor
    masks: Tensor
    scores: Tensor
    step_map: Tensor
    near: Tensor
    steps: Tensor
    reason: Tensor
    active: Tensor
    first: Tensor
    modulator: Tensor
    seeds: Tensor | None = None
    features: Tensor | None = None
    forwards: list[int] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps that were taken."""
        return len(self.forwards)


class RegionMiner(nn.Module):
    """Mine the region of each class that a picture is said to show, from a classifier alone.

    In each step, for all pairs that are still active and in one batch: what was mined for the pair
    is hidden in its picture, and the classifier looks at it once. The modulator says from this
    whether the class is still there; if so, the generator takes what activates most as the next
    region: the rectified activation, enlarged to the picture, 0 where the pair has been mined, then
    divided by its maximum, above ``tau``. So large objects get many steps and small ones few. The
    first step is granted by the label.

    After Zhou et al. 2020, arXiv:2006.07834, whose abstract asks for a parallel modulator and a
    category-aware generator; all else is ours. The defaults of the config are, too.

    The result does not depend on how pairs are divided into batches nor on the order of pictures,
    except that a network may round differently in batches of different sizes.

    Args:
        model: any callable pictures [n, 3, H, W] -> (logits [n, C], activations [n, C, h, w]), the
            latter without the classifier's bias. For feature erasing it also has
            ``features(pictures) -> [n, D, h, w]`` and ``head(features) -> (logits, activations)``.
            A network runs in evaluation mode and without gradients, and is afterwards as it was.
        config: how regions are mined.
        modulator: of the mode ``calibrated``, calibrated with the same model; None: a new one,
            which does for the other modes.
        fill: colour of what is hidden in pictures, one value or one for each channel; 0 is the mean
            of pictures that were normalised.

    Raises:
        ValueError: the modulator has other settings than ``config``, or the model lacks what
            feature erasing needs.

    Example:
        >>> def model(pictures):  # one class: what is bright
        ...     return pictures.amax((2, 3)) - 0.5, pictures
        >>> picture = torch.tensor([[[[1.0, 0.9, 0.0, 0.1], [0.8, 0.7, 0.0, 0.0]]]])
        >>> config = MiningConfig(mode="absolute", min_area=1, keep=0.52)
        >>> found = RegionMiner(model, config).mine(picture, torch.tensor([[1]]))
        >>> found.step_map.tolist(), found.reason.tolist()
        ([[[1, 1, 0, 0], [1, 1, 0, 0]]], [1])
    """

    model: Any

    def __init__(
        self,
        model: Callable[[Tensor], tuple[Tensor, Tensor]],
        config: MiningConfig | None = None,
        modulator: Modulator | None = None,
        fill: float | Sequence[float] | Tensor = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config or MiningConfig()
        self.modulator = modulator or Modulator(0, self.config)
        self.fill = fill
        for name in _OF_THE_MODULATOR:
            own, its = getattr(self.config, name), getattr(self.modulator.config, name)
            if own != its:
                raise ValueError(f"the modulator has {name}={its!r}, and the config {name}={own!r}")
        if self.config.erase == "feature":
            lacking = [name for name in ("features", "head") if not hasattr(model, name)]
            if lacking:
                raise ValueError(
                    f"erase='feature' needs a model with features(pictures) and head(features), "
                    f"and {type(model).__name__} has no {' and no '.join(lacking)}: "
                    f"use erase='pixel'"
                )

    def mine(self, images: Tensor, labels: Tensor, seeds: Tensor | None = None) -> MiningResult:
        """Return the regions of all classes that the labels name.

        Args:
            images: as the network wants them, all of one size, [N, C, H, W]. Pictures of different
                sizes are mined one size, or one picture, at a time.
            labels: 1, or anything but 0, where the picture shows the class, [N, C].
            seeds: activations that take the place of the network's in the first step, such as maps
                that another method made, [N, C, h, w]; None: none.

        Raises:
            ValueError: shapes that do not fit, a modulator that is not calibrated, or an activation
                that is not finite; the message names picture and class.
        """
        state = self.start(images, labels, seeds)
        while bool(state.active.any()) and state.step < self.config.max_steps:
            self.step(state)
        return self.finish(state)

    # The parts of mine, for those who look at each step

    def start(self, images: Tensor, labels: Tensor, seeds: Tensor | None = None) -> MiningState:
        """Return the state before the first step; see :meth:`mine`."""
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating point [N, C, H, W], not {images.dtype} "
                f"{list(images.shape)}"
            )
        if labels.ndim != 2 or len(labels) != len(images):
            raise ValueError(
                f"labels must be [{len(images)}, C], one row for each picture, not "
                f"{list(labels.shape)}"
            )
        if seeds is not None and (seeds.ndim != 4 or seeds.shape[:2] != labels.shape):
            raise ValueError(f"seeds must be {[*labels.shape, 'h', 'w']}, not {list(seeds.shape)}")
        pairs = enumerate_pairs(labels.to(images.device))
        shape = (len(pairs), *images.shape[2:])
        exact = torch.promote_types(images.dtype, torch.float32)
        return MiningState(
            images=images,
            num_classes=labels.shape[1],
            pairs=pairs,
            masks=images.new_zeros(shape, dtype=torch.bool),
            scores=images.new_zeros(shape, dtype=exact),
            step_map=images.new_zeros(shape, dtype=torch.uint8),
            near=images.new_zeros(shape, dtype=torch.uint8),
            steps=pairs.new_zeros(len(pairs)),
            reason=pairs.new_full((len(pairs),), MAX_STEPS),
            active=images.new_ones(len(pairs), dtype=torch.bool),
            first=images.new_full((len(pairs),), torch.nan, dtype=exact),
            modulator=images.new_full((self.config.max_steps, len(pairs)), torch.nan, dtype=exact),
            seeds=seeds,
        )

    @torch.no_grad()
    def step(self, state: MiningState, evidence: tuple[Tensor, Tensor] | None = None) -> None:
        """Take one step with all active pairs, in place.

        Args:
            state: of :meth:`start`.
            evidence: logits [A] and activations [A, h, w] of the active pairs, of each its class
                alone; None: the network is asked, as always in :meth:`mine`.
        """
        rows = state.active.nonzero()[:, 0]
        hidden = self._hidden(state)[rows]
        logits, cams = self._look(state, rows, hidden) if evidence is None else evidence
        images, classes = state.pairs[rows].unbind(1)
        _check_finite(logits, cams, images, classes, state.step + 1)
        statistic = self.modulator.statistic(logits, cams, classes)
        state.modulator[state.step, rows] = statistic.to(state.modulator)
        if state.step == 0:
            state.first[rows] = statistic.to(state.first)
            if state.seeds is not None:
                cams = state.seeds.to(cams.device)[images, classes]
                _check_finite(logits, cams, images, classes, 1)
            goes_on = torch.ones_like(rows, dtype=torch.bool)
        elif self.config.adaptive:
            goes_on = self.modulator(statistic, state.first[rows], classes)
            if self.config.joint_stop:
                going = torch.zeros(len(state.images), dtype=torch.bool, device=rows.device)
                going[images[goes_on]] = True
                goes_on = going[images]
        else:
            goes_on = torch.ones_like(rows, dtype=torch.bool)
        state.forwards.append(len(rows))
        state.reason[rows[~goes_on]] = EXHAUSTED
        state.active[rows[~goes_on]] = False
        for part in torch.split(goes_on.nonzero()[:, 0], self.config.max_batch_pairs):
            self._grow(state, rows[part], hidden[part], wide(cams[part]))

    def finish(self, state: MiningState) -> MiningResult:
        """Return what was mined so far; pairs that are still active have the reason max_steps."""
        return MiningResult(
            pairs=state.pairs,
            masks=state.masks,
            scores=state.scores,
            step_map=state.step_map,
            steps=state.steps,
            reason=state.reason,
            modulator=state.modulator,
            forwards=torch.tensor(state.forwards, dtype=torch.int64, device=state.pairs.device),
            num_images=len(state.images),
            config=self.config,
            near=state.near,
        )

    def _hidden(self, state: MiningState) -> Tensor:
        """Return what is hidden from each pair, before dilation, boolean [P, H, W]."""
        if not self.config.merged:
            return state.masks
        owners = state.pairs[:, 0]
        union = state.masks.new_zeros((len(state.images), *state.masks.shape[1:]))
        for image, mask in zip(owners.tolist(), state.masks, strict=True):
            union[image] |= mask
        return union[owners]

    def _look(self, state: MiningState, rows: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's logits [A] and activations [A, h, w] of the active pairs."""
        images, classes = state.pairs[rows].unbind(1)
        if state.step == 0 or self.config.merged:
            # Pairs of a picture see the same: it is looked at once for all of them.
            _, view = torch.unique(images, return_inverse=True)
        else:
            view = torch.arange(len(rows), device=rows.device)
        views = int(view.max()) + 1
        shown = view.new_empty(views).scatter_(0, view, torch.arange(len(rows), device=rows.device))
        logits, cams = [], []
        with looking(self.model):
            most = self._most_at_once(state.images)
            for first in range(0, views, most):
                part = shown[first : first + most]
                scores, maps = self._forward(state, images[part], hidden[part])
                check_outputs(scores, maps, len(part), state.num_classes)
                own = (view >= first) & (view < first + len(part))
                logits.append(scores[view[own] - first, classes[own]])
                cams.append(maps[view[own] - first, classes[own]])
        return torch.cat(logits), torch.cat(cams)

    def _most_at_once(self, images: Tensor) -> int:
        """Return how many pictures the network is given in one batch."""
        if images.device.type != "cpu":
            return self.config.max_batch_pairs
        fitting = _CPU_PIXELS // prod(images.shape[2:])
        return max(1, min(self.config.max_batch_pairs, fitting))

    def _forward(self, state: MiningState, images: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        dilation = self.config.dilation
        if self.config.erase == "pixel":
            pictures = erase(state.images[images], hidden, self.fill, dilation)
            seen: tuple[Tensor, Tensor] = self.model(pictures)
            return seen
        if state.features is None:
            parts = torch.split(state.images, self.config.max_batch_pairs)
            state.features = torch.cat([self.model.features(part) for part in parts])
        features = state.features[images]
        size = (features.shape[2], features.shape[3])
        cells = feature_mask(dilate(hidden, dilation), size)
        seen = self.model.head(features.masked_fill(cells[:, None], 0))
        return seen

    def _grow(self, state: MiningState, rows: Tensor, hidden: Tensor, cams: Tensor) -> None:
        """Add the next region of pairs, or let them stop."""
        config, step = self.config, state.step
        size = (hidden.shape[1], hidden.shape[2])
        activation = enlarged(cams.relu()[:, None], size)[:, 0].masked_fill(hidden, 0)
        activation = normalized(activation, "max")
        region = activation > config.tau
        # min_area is in cells, regions are in pixels: both sides times cells times pixels.
        cells, pixels = prod(cams.shape[1:]), prod(size)
        enough = region.sum((1, 2)) * cells >= config.min_area * pixels
        stopped = ~enough
        if step == 1 and config.fallback == "argmax_cell":
            region = torch.where(enough[:, None, None], region, _strongest_cell(cams, size))
            enough = torch.ones_like(enough)
        region &= enough[:, None, None]
        state.masks[rows] |= region
        state.step_map[rows] = torch.where(region, step, state.step_map[rows]).to(torch.uint8)
        score = config.decay ** (step - 1) * activation.to(state.scores)
        state.scores[rows] = torch.where(region, score, state.scores[rows])
        state.steps[rows] += enough
        if config.tau > 0:
            below = activation.where(~region & (activation <= config.tau), 0) / config.tau
            near = (255 * below).to(torch.uint8)
            state.near[rows] = torch.where(enough[:, None, None], near, state.near[rows])
        state.reason[rows[stopped]] = EMPTY
        if config.max_area_fraction is not None:
            full = state.masks[rows].sum((1, 2)) >= config.max_area_fraction * pixels
            state.reason[rows[full & ~stopped]] = AREA
            stopped = stopped | full
        state.active[rows[stopped]] = False


def _strongest_cell(cams: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the pixels of the cell with the largest activation, the first of equals; boolean."""
    cells = torch.zeros_like(cams).flatten(1)
    cells.scatter_(1, cams.flatten(1).argmax(1, keepdim=True), 1)
    cells = cells.view_as(cams)[:, None]
    return nn.functional.interpolate(cells, size, mode="nearest-exact")[:, 0].bool()


def _check_finite(logits: Tensor, cams: Tensor, images: Tensor, classes: Tensor, step: int) -> None:
    wrong = ~cams.isfinite().flatten(1).all(1) | logits.isnan()
    if wrong.any():
        p = int(wrong.nonzero()[0])
        raise ValueError(
            f"picture {int(images[p])} of the batch, class {int(classes[p])}: the network's "
            f"activation or logit is not finite in step {step}"
        )
