"""What was mined: masks, scores and the steps at which each pixel was found."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foveal.config import MiningConfig
from foveal.files import replacing
from foveal.mining.label_maps import Conflict, compose_label_map

EXHAUSTED, EMPTY, MAX_STEPS, AREA = 1, 2, 3, 4
REASONS = {
    EXHAUSTED: "exhausted",
    EMPTY: "empty",
    MAX_STEPS: "max_steps",
    AREA: "area",
}
"""Why a pair stopped: the modulator saw nothing more of the class, fewer than the least area of new
pixels were found, the last step was taken, or the mask reached the largest share of the picture."""

_STORED = ("pairs", "scores", "steps", "reason", "modulator", "forwards")


@dataclass(frozen=True, eq=False)
class MiningResult:
    """What was mined for P pairs of N pictures.

    Attributes:
        pairs: picture and class, int64 [P, 2].
        masks: boolean [P, H, W].
        scores: of mined pixels, the activation (a share of the largest one of its step) times
            ``decay`` to the power of the earlier steps; else 0; float32 [P, H, W] in [0, 1].
        step_map: the step, from 1 on, at which a pixel was mined; 0: never; uint8 [P, H, W].
        steps: how many steps found something, int64 [P].
        reason: why a pair stopped, a key of :data:`REASONS`, int64 [P].
        modulator: the statistic of each step, [max_steps, P]; nan where a pair had stopped.
        forwards: pairs that were looked at in each step, int64 [steps until all had stopped].
        num_images: N.
        config: how they were mined.
        near: of pixels that were not mined, the activation in the pair's last step as a share of
            ``tau``, in 255ths, rounded down, uint8 [P, H, W]; None for an earlier stop, of which it
            is not known.
    """

    pairs: Tensor
    masks: Tensor
    scores: Tensor
    step_map: Tensor
    steps: Tensor
    reason: Tensor
    modulator: Tensor
    forwards: Tensor
    num_images: int
    config: MiningConfig
    near: Tensor | None = None

    @property
    def unmined(self) -> Tensor:
        """Pairs for which nothing was found, int64 [U, 2]."""
        return self.pairs[self.steps == 0]

    def at_step(self, k: int) -> "MiningResult":
        """Return what mining with ``max_steps=k`` would have found, from the step map alone.

        Args:
            k: at least 1; steps that were not taken change nothing.

        Raises:
            ValueError: ``k`` is less than 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        k = min(k, self.config.max_steps)
        masks = (self.step_map > 0) & (self.step_map <= k)
        looked = (~self.modulator.isnan()).sum(0)  # steps at which each pair was looked at
        return MiningResult(
            pairs=self.pairs,
            masks=masks,
            scores=torch.where(masks, self.scores, 0),
            step_map=torch.where(masks, self.step_map, 0),
            steps=self.steps.clamp(max=k),
            reason=torch.where(looked <= k, self.reason, MAX_STEPS),
            modulator=self.modulator[:k],
            forwards=self.forwards[:k],
            num_images=self.num_images,
            config=replace(self.config, max_steps=k),
            near=self.near if k == self.config.max_steps else None,
        )

    def to_label_map(
        self,
        conflict: Conflict = "score",
        saliency: Tensor | None = None,
        saliency_threshold: float = 0.5,
        ignore_index: int = 255,
        empty: Literal["background", "ignore"] = "background",
        band: float | None = None,
    ) -> Tensor:
        """Return one label map for each picture, int64 [N, H, W]: 0 background, class + 1.

        Args:
            conflict: see :func:`foveal.mining.functional.compose_label_map`, like all but ``band``.
            saliency: [N, H, W].
            saliency_threshold: from which on a pixel is salient.
            ignore_index: label of the pixels from which nothing is learned.
            empty: what a picture without any pair becomes.
            band: share of ``tau`` in (0, 1), such as 0.5: background for which some pair's
                activation lay above ``band * tau`` in its last step becomes ``ignore_index``;
                None: no such band.

        Raises:
            ValueError: a band outside (0, 1), or of a result that does not know
                :attr:`near`; and what ``compose_label_map`` raises.
        """
        labels = compose_label_map(
            self.pairs,
            self.masks,
            self.scores,
            self.num_images,
            conflict,
            saliency,
            saliency_threshold,
            ignore_index,
            empty,
        )
        if band is None:
            return labels
        if not 0 < band < 1:
            raise ValueError(f"band must lie in (0, 1), not {band!r}")
        if self.near is None:
            raise ValueError(
                "an earlier stop knows no activations below tau: leave band out, or mine with "
                f"max_steps={self.config.max_steps}"
            )
        doubtful = torch.zeros_like(labels, dtype=torch.bool)
        for n, near in zip(self.pairs[:, 0].tolist(), self.near, strict=True):
            doubtful[n] |= near > 255 * band
        return torch.where(doubtful & (labels == 0), ignore_index, labels)

    # Files

    def save(self, path: str | Path) -> Path:
        """Write a folder: pictures of each pair, and ``mining.npz`` with all the rest.

        The pictures are the step map, such as ``0003_14.png`` for picture 3 of the batch and class
        14, and ``0003_14_near.png``. Masks are not written: they are where the step map is not 0.

        Args:
            path: the folder; it is made.

        Returns:
            The folder.
        """
        folder = Path(path)
        for ending, maps in (("", self.step_map), ("_near", self.near)):
            if maps is not None:
                for name, pixels in zip(self._names(), maps.cpu(), strict=True):
                    with replacing(folder / f"{name}{ending}.png") as target:
                        Image.fromarray(pixels.numpy()).save(target, optimize=True)
        tensors = {name: getattr(self, name).cpu().numpy() for name in _STORED}
        settings = json.dumps({"config": asdict(self.config), "near": self.near is not None})
        with replacing(folder / "mining.npz") as target:
            np.savez_compressed(
                target, num_images=np.array(self.num_images), settings=settings, **tensors
            )
        return folder

    @classmethod
    def load(cls, path: str | Path) -> "MiningResult":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
        """
        folder = Path(path)
        with np.load(folder / "mining.npz", allow_pickle=False) as file:
            arrays = dict(file)
        settings = json.loads(str(arrays["settings"]))
        tensors = {name: torch.from_numpy(arrays[name]) for name in _STORED}
        blank = torch.zeros(tensors["scores"].shape, dtype=torch.uint8)
        found = cls(
            **tensors,
            masks=blank.bool(),
            step_map=blank,
            num_images=int(arrays["num_images"]),
            config=MiningConfig(**settings["config"]),
        )

        def maps(ending: str) -> Tensor:
            filled = blank.clone()
            for name, target in zip(found._names(), filled, strict=True):
                with Image.open(folder / f"{name}{ending}.png") as image:
                    target.copy_(torch.from_numpy(np.array(image)))
            return filled

        step_map = maps("")
        near = maps("_near") if settings["near"] else None
        return replace(found, masks=step_map > 0, step_map=step_map, near=near)

    def _names(self) -> list[str]:
        return [f"{image:04d}_{label:02d}" for image, label in self.pairs.tolist()]
