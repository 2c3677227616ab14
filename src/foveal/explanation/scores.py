"""What is explained: classes of pictures, and the score that a network gives them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveal.names import unknown

Targets = int | list[int] | range | Tensor | str | None
Region = Tensor | str
REGIONS = ("all", "predicted")


def resolve_targets(logits: Tensor, targets: Targets) -> Tensor:
    """Return the classes to explain of each picture, int64 [B, T].

    Args:
        logits: [B, K] or [B, K, H, W].
        targets: one class for all pictures; a class per picture, [B]; several per picture, [B, T];
            ``"all"`` classes; None: the predicted class, in segmentation that of most pixels. Of
            several such the first is taken.

    Raises:
        ValueError: a class that the network does not have, or not one for each picture.
    """
    pictures, classes = logits.shape[:2]
    if targets is None:
        found = logits.argmax(1)
        if found.ndim == 3:
            counts = [torch.bincount(one.flatten(), minlength=classes) for one in found]
            found = torch.stack(counts).argmax(1) if counts else found[:, 0, 0]
        return found[:, None]
    if isinstance(targets, str):
        if targets != "all":
            raise ValueError(unknown("target", targets, ["all"]))
        targets = range(classes)
        return torch.tensor(targets, device=logits.device).expand(pictures, -1)
    try:
        chosen = torch.as_tensor(list(targets) if isinstance(targets, range) else targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "targets must be one class, one for each picture, or as many for each, all numbers; "
            f"not {targets!r}"
        ) from error
    if isinstance(targets, list) and not targets:
        chosen = chosen.long()  # torch takes it for floating point
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise ValueError(f"targets must be numbers of classes, not {chosen.dtype}")
    # A copy, as what was made in inference mode is of no use for derivatives.
    chosen = chosen.to(logits.device, torch.int64, copy=True)
    if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < classes:
        wrong = chosen[(chosen < 0) | (chosen >= classes)].flatten()[0]
        raise ValueError(
            f"there is no class {wrong}: the network has {classes}, 0 to {classes - 1}"
        )
    if chosen.ndim == 0:
        return chosen.expand(pictures, 1)
    if chosen.ndim > 2 or len(chosen) != pictures:
        raise ValueError(
            f"targets must be one class, one for each of the {pictures} pictures, or rows of "
            f"several for each; not {list(chosen.shape)}"
        )
    return chosen[:, None] if chosen.ndim == 1 else chosen


def target_scores(logits: Tensor, targets: Tensor, region: Region = "all") -> tuple[Tensor, Tensor]:
    """Return each picture's score for one class, as a sum and the number of its parts.

    The score is the class's logit; in segmentation its mean over a region of the picture (Seg-
    Grad-CAM, Vinogradova et al. 2020, who take the sum). It is the sum through the number; apart,
    as derivatives of the sum fit float16 and those of the mean may not.

    Args:
        logits: [B, K] or [B, K, H, W].
        targets: [B].
        region: in segmentation, pixels that count: ``"all"``, ``"predicted"`` as the class, or a
            mask [B, h, w], which is resized to the logits' size (the nearest).

    Returns:
        Sums [B] and numbers [B], at least 1; float32, or float64 as the logits.

    Raises:
        ValueError: an unknown region, one for a network without maps of logits, a mask for other
            pictures.
    """
    check_region(logits, region)
    kind = torch.promote_types(logits.dtype, torch.float32)
    chosen = logits[torch.arange(len(logits), device=logits.device), targets].to(kind)
    if logits.ndim == 2:
        return chosen, torch.ones_like(chosen)
    if isinstance(region, Tensor):
        mask = region.to(logits.device, kind)[:, None]
        counts = interpolate(mask, logits.shape[2:], mode="nearest-exact")[:, 0].bool()
    elif region == "predicted":
        counts = logits.argmax(1) == targets[:, None, None]
    else:
        counts = torch.ones_like(chosen, dtype=torch.bool)
    return torch.where(counts, chosen, 0).sum((1, 2)), counts.sum((1, 2)).clamp(min=1).to(kind)


def check_region(logits: Tensor, region: Any) -> None:
    """Do nothing if a region fits the logits.

    Raises:
        ValueError: it does not.
    """
    if isinstance(region, str) and region not in REGIONS:
        raise ValueError(unknown("region", region, REGIONS))
    if logits.ndim == 2 and not (isinstance(region, str) and region == "all"):
        raise ValueError("a region is for segmentation, and this network has no maps of logits")
    if isinstance(region, Tensor) and (region.ndim != 3 or len(region) != len(logits)):
        raise ValueError(
            f"the region must be a mask [{len(logits)}, h, w], not {list(region.shape)}"
        )
