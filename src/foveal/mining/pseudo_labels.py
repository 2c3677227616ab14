"""From what was mined to the label map of a picture."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from foveal.config import PseudoLabelConfig
from foveal.data.masks import LabelMap
from foveal.explanation import class_activation
from foveal.mining.crf import dense_crf
from foveal.mining.result import MiningResult


def of_picture(result: MiningResult, number: int, size: tuple[int, int]) -> MiningResult:
    """Return what was mined in one picture of a batch, at the picture's own size.

    Args:
        result: of the batch.
        number: of the picture in it.
        size: (H, W), to which each pixel is enlarged or reduced by taking the nearest one.

    Returns:
        A result of one picture; ``forwards`` are still those of the whole batch.
    """
    own = result.pairs[:, 0] == number
    pairs = result.pairs[own].clone()
    pairs[:, 0] = 0
    step_map = resized(result.step_map[own], size)
    return replace(
        result,
        pairs=pairs,
        masks=step_map > 0,
        scores=resized(result.scores[own], size),
        step_map=step_map,
        steps=result.steps[own],
        reason=result.reason[own],
        modulator=result.modulator[:, own],
        num_images=1,
        near=None if result.near is None else resized(result.near[own], size),
    )


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps [P, H, W] at another size, each pixel the nearest one's."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    if len(maps) == 0:
        return maps.new_zeros((0, *size))
    return interpolate(maps[:, None], size, mode="nearest-exact")[:, 0]


def pseudo_label_map(
    mined: MiningResult,
    config: PseudoLabelConfig,
    image: NDArray[np.uint8] | None = None,
    saliency: NDArray[np.float32] | None = None,
) -> LabelMap:
    """Return the label map of one picture: 0 background, a class's index + 1, 255 ignored.

    Args:
        mined: of one picture, as :func:`of_picture` returns it.
        config: the rules.
        image: RGB, uint8 [H, W, 3], for the random field; None: without it.
        saliency: [H, W] in [0, 1]; None: without it.

    Returns:
        uint8 [H, W].
    """
    kept = mined if config.steps is None else mined.at_step(config.steps)
    labels = kept.to_label_map(
        config.conflict,
        None if saliency is None else torch.from_numpy(saliency)[None],
        config.saliency_threshold,
        empty=config.empty,
        band=config.band,
    )
    found = labels[0].to(torch.uint8).numpy()
    return found if image is None else dense_crf(image, found, config.crf)


def seed_label_maps(
    cams: Tensor, classes: Tensor, size: tuple[int, int], thresholds: Tensor
) -> Tensor:
    """Return the label maps of one picture that activations give alone, one for each threshold.

    Of the classes of the picture the one with the largest activation, rectified and divided by its
    maximum, gets the pixel, if that is above the threshold; else it is background.

    Args:
        cams: activations of the picture's classes, [P, h, w].
        classes: their indices, ascending, int64 [P].
        size: (H, W) of the picture.
        thresholds: [T].

    Returns:
        int64 [T, H, W].
    """
    labels = torch.zeros((len(thresholds), *size), dtype=torch.int64)
    if len(cams) == 0:
        return labels
    maps = seed_maps(cams, size)
    best = maps.amax(0)
    # The lower class last: of equal ones it gets the pixel.
    for activation, label in zip(maps.flip(0), (classes + 1).flip(0).tolist(), strict=True):
        wins = (activation == best) & (best > thresholds[:, None, None])
        labels = torch.where(wins, label, labels)
    return labels


def seed_maps(cams: Tensor, size: tuple[int, int]) -> Tensor:
    """Return activations [P, h, w] rectified, enlarged to (H, W), each divided by its maximum."""
    return class_activation(cams[None].float(), torch.eye(len(cams)), size=size)[0]
