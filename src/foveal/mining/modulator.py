"""Whether anything of a class is left to be mined: the parallel modulator."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from foveal.config import MiningConfig
from foveal.mining.looking import looking, wide


def presence(
    logits: Tensor,
    cams: Tensor,
    statistic: Literal["topk", "logsumexp", "logit"] = "topk",
    top_k: int = 9,
) -> Tensor:
    """Return how strongly classes are present somewhere in pictures.

    Unlike a logit that is a mean over the picture, ``topk`` and ``logsumexp`` do not shrink with
    the area of an object.

    Args:
        logits: [...].
        cams: the activations of the same classes, [..., h, w].
        statistic: ``topk``: mean of the ``top_k`` largest cells, or of all if there are fewer;
            ``logsumexp``: logarithm of the mean over cells of their exponentials; ``logit``: the
            logit.
        top_k: how many cells.

    Returns:
        [...], float32 (float64 of such activations).

    Example:
        >>> presence(torch.zeros(1), torch.tensor([[[4.0, 2.0, 0.0]]]), top_k=2)
        tensor([3.])
    """
    if statistic == "logit":
        return wide(logits)
    cells = wide(cams).flatten(-2)
    if statistic == "logsumexp":
        return cells.logsumexp(-1) - float(np.log(cells.shape[-1]))
    return cells.topk(min(top_k, cells.shape[-1])).values.mean(-1)


class Modulator(nn.Module):
    """Say for each (picture, class) pair whether the picture without what was mined has the class.

    In the modes ``absolute`` and ``relative`` the statistic is the class's probability, sigmoid of
    the logit. In the mode ``calibrated`` it is :func:`presence`, and a pair goes on while it is at
    least the class's threshold: a high quantile of the statistic over pictures without the class,
    so that no pixel labels are needed. A class that was in every picture of the calibration is
    treated as in the mode ``absolute``.

    Args:
        num_classes: C; of the mode ``calibrated`` alone.
        config: ``mode``, ``keep``, ``quantile``, ``statistic``, ``top_k``.

    Attributes:
        thresholds: of each class, [C]; nan for those without one.
        calibrated: whether :meth:`calibrate` has run, boolean [].

    Shape:
        statistic [A] of the pairs that are looked at, first [A] the statistic of their first step,
        classes int64 [A]; output boolean [A].
    """

    thresholds: Tensor
    calibrated: Tensor

    def __init__(self, num_classes: int = 0, config: MiningConfig | None = None) -> None:
        super().__init__()
        self.config = config or MiningConfig()
        self.register_buffer("thresholds", torch.full((num_classes,), torch.nan))
        self.register_buffer("calibrated", torch.tensor(False))

    def statistic(self, logits: Tensor, cams: Tensor, classes: Tensor) -> Tensor:
        """Return the statistic of pairs, [A].

        Args:
            logits: of the pairs' classes, [A].
            cams: their activations, without the classifier's bias, [A, h, w].
            classes: int64 [A].

        Raises:
            ValueError: the mode is ``calibrated``, pairs are to be stopped, and :meth:`calibrate`
                has not run, or the class was not there.
        """
        probability = wide(logits).sigmoid()
        if self.config.mode != "calibrated":
            return probability
        found = presence(logits, cams, self.config.statistic, self.config.top_k)
        if not self.config.adaptive:  # it is a record, and held against no threshold
            return found
        return torch.where(self._thresholds(classes).isnan(), probability.to(found), found)

    def forward(self, statistic: Tensor, first: Tensor, classes: Tensor) -> Tensor:
        """Return which pairs go on."""
        keep = self.config.keep
        if self.config.mode == "absolute":
            return statistic >= keep
        if self.config.mode == "relative":
            return statistic >= keep * first
        thresholds = self._thresholds(classes).to(statistic)
        return statistic >= torch.where(thresholds.isnan(), keep, thresholds)

    def _thresholds(self, classes: Tensor) -> Tensor:
        if not self.calibrated:
            raise ValueError(
                "the modulator is not calibrated: give RegionMiner a "
                "Modulator(num_classes, config).calibrate(model, loader), or a config with "
                "mode='absolute'"
            )
        if len(classes) and int(classes.max()) >= len(self.thresholds):
            raise ValueError(
                f"the modulator has thresholds of {len(self.thresholds)} classes, and the labels "
                f"name class {int(classes.max())}"
            )
        return self.thresholds[classes]

    @torch.no_grad()
    def calibrate(
        self,
        model: Callable[[Tensor], tuple[Tensor, Tensor]],
        loader: Iterable[Any],
        quantile: float | None = None,
    ) -> "Modulator":
        """Set the thresholds from pictures with image labels.

        Args:
            model: pictures -> (logits [N, C], activations [N, C, h, w]), as for
                :class:`foveal.mining.RegionMiner`; it runs in evaluation mode.
            loader: batches (pictures [N, 3, H, W], labels [N, C]), such as a list of them, or of
                a ``DataLoader``; pictures are moved to the thresholds' device.
            quantile: share of the pictures without the class whose statistic lies below the
                threshold, in [0, 1], interpolated linearly; None: that of the config.

        Returns:
            Itself.

        Warns:
            UserWarning: a class was in every picture; pairs of it are held to ``keep``.

        Raises:
            ValueError: no picture, a quantile out of range, or labels of another number of classes.
        """
        quantile = self.config.quantile if quantile is None else quantile
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], not {quantile!r}")
        count, found = len(self.thresholds), []
        for images, labels in loader:
            if labels.ndim != 2 or labels.shape[1] != count:
                raise ValueError(
                    f"labels must be [N, {count}], one column for each class of the modulator, "
                    f"not {list(labels.shape)}"
                )
            with looking(model):
                logits, cams = model(images.to(self.thresholds.device))
            seen = presence(logits, cams, self.config.statistic, self.config.top_k)
            found.append(seen.masked_fill(labels.to(seen.device) != 0, torch.nan).cpu())
        if not found or sum(map(len, found)) == 0:
            raise ValueError("there is no picture to calibrate the modulator with")
        values = torch.cat(found).double().numpy()
        thresholds = np.full(count, np.nan)
        for c in range(count):
            negatives = values[~np.isnan(values[:, c]), c]
            if len(negatives):
                thresholds[c] = np.quantile(negatives, quantile)
        self.thresholds.copy_(torch.from_numpy(thresholds))
        self.calibrated.fill_(True)
        lost = np.isnan(thresholds).nonzero()[0].tolist()
        if lost:
            warnings.warn(
                f"there is no picture without class {', '.join(map(str, lost))}: pairs of it go on "
                f"while its probability is at least {self.config.keep}",
                stacklevel=2,
            )
        return self
