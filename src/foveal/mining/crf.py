"""A dense conditional random field that fits labels to the colours of a picture."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.config import CrfConfig
from foveal.data.masks import IGNORED, LabelMap


def dense_crf(image: NDArray[np.uint8], labels: LabelMap, config: CrfConfig) -> LabelMap:
    """Return labels that follow the colours of a picture.

    Each label is believed with the config's confidence. A Gaussian smoothness term and a bilateral
    colour term then move the borders; ignored pixels may be anything in this, and are ignored
    afterwards as well. Labels that the picture does not have already do not appear.

    Args:
        image: RGB, uint8 [H, W, 3].
        labels: uint8 [H, W], 255 is ignored.
        config: reach and weight of both terms; without iterations the labels stay as they are.

    Raises:
        ValueError: picture and labels differ in size.
        ImportError: the extra ``crf`` is not installed.

    Source: Krähenbühl and Koltun 2011, arXiv:1210.5644, as wrapped by pydensecrf2; the defaults
    are those of IRN's official code (Ahn et al. 2019, arXiv:1904.05044).
    """
    if image.shape != (*labels.shape, 3):
        raise ValueError(
            f"the picture must be [H, W, 3] of the labels' size, not {list(image.shape)} and "
            f"{list(labels.shape)}"
        )
    present = np.unique(labels[labels != IGNORED])
    if config.iterations == 0 or len(present) < 2:
        return labels
    densecrf, unary_from_labels = _library()
    # Values from 1 on: the library takes 0 for "could be anything".
    known = np.searchsorted(present, labels).astype(np.int32) + 1
    known[labels == IGNORED] = 0
    height, width = labels.shape
    field = densecrf.DenseCRF2D(width, height, len(present))
    field.setUnaryEnergy(unary_from_labels(known, len(present), config.confidence))
    field.addPairwiseGaussian(sxy=config.smooth_sxy, compat=config.smooth_compat)
    field.addPairwiseBilateral(
        sxy=config.color_sxy,
        srgb=config.color_srgb,
        rgbim=np.ascontiguousarray(image),
        compat=config.color_compat,
    )
    marginals = np.array(field.inference(config.iterations))
    found = present[marginals.argmax(0)].reshape(height, width).astype(np.uint8)
    return np.where(labels == IGNORED, labels, found)


def require_crf(config: CrfConfig) -> None:
    """Raise ImportError where the random field is asked for and its library is not there."""
    if config.iterations:
        _library()


def _library() -> tuple[Any, Any]:
    try:
        from pydensecrf import densecrf
        from pydensecrf.utils import unary_from_labels
    except ImportError:
        raise ImportError(
            "pseudo.crf.iterations needs an extra: pip install foveal[crf]; 0 does without"
        ) from None
    return densecrf, unary_from_labels
