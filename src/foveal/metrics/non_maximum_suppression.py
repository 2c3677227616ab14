"""Thinning a map of edge probabilities: only the crests of its ridges keep their values.

Written in NumPy and SciPy from the description of Dollár's ``edgesNms`` (Structured Forests,
https://github.com/pdollar/edges), which published edge scores are made with.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def suppress_non_maxima(
    probability: NDArray[np.floating],
    *,
    radius: int = 1,
    border: int = 5,
    margin: float = 1.01,
) -> Floats:
    r"""Set to 0 what is clearly weaker than a neighbour across the ridge.

    A pixel :math:`p` stays if :math:`m \, p \ge` the values ``1`` to ``radius`` pixels away to
    either side along :func:`ridge_normal`, interpolated bilinearly; beyond the frame the map goes
    on with its border values. Values nearer than ``border`` pixels to the frame fade linearly to 0
    on it, since estimates are noisy there.

    Args:
        probability: [H, W] in [0, 1].
        radius: how far to look, pixels.
        border: width of the faded frame, pixels; at most half of each side.
        margin: m, at least 1; how much weaker than a neighbour a crest may be.

    Returns:
        float64 [H, W]: the values that stay, 0 elsewhere.

    Example:
        >>> ridge = np.tile([0.0, 0.2, 0.5, 0.9, 0.5, 0.2, 0.0], (7, 1))
        >>> suppress_non_maxima(ridge, border=0)[3].tolist()
        [0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0]
    """
    from scipy.ndimage import map_coordinates

    p = np.asarray(probability, np.float64)
    angle = ridge_normal(p)
    rows, columns = np.indices(p.shape)
    kept = p.copy()
    for step in (*range(-radius, 0), *range(1, radius + 1)):
        at = (rows + step * np.sin(angle), columns + step * np.cos(angle))
        kept[margin * p < map_coordinates(p, at, order=1, mode="nearest")] = 0
    border = min(border, *(side // 2 for side in p.shape))
    return kept * _fade(p.shape[0], border)[:, None] * _fade(p.shape[1], border)


def ridge_normal(probability: NDArray[np.floating]) -> Floats:
    r"""Return the angle of the direction across the ridge at each pixel.

    The map is smoothed by a triangle filter of radius 4; of its second derivatives, each a central
    difference twice, the angle is
    :math:`\arctan(\mp p_{yy} / (p_{xx} + 10^{-5}))`, minus where :math:`p_{xy} > 0`. That is exact
    for ridges along the axes and the diagonals. In between the quotient is the squared tangent, so
    the angle is up to 13 degrees off; kept since published scores depend on it. (Dollár's is 0
    wherever :math:`p_{xy} = 0`, so that ridges exactly along a row are not thinned.)

    Args:
        probability: [H, W] in [0, 1].

    Returns:
        float64 [H, W], radians in [-pi/2, pi/2]; 0 points along the rows, pi/2 down the columns.
    """
    p_y, p_x = _gradient(_triangle(np.asarray(probability, np.float64), 4))
    p_yy = _gradient(p_y)[0]
    p_xy, p_xx = _gradient(p_x)
    denominator = p_xx + 1e-5
    denominator[denominator == 0] = 1e-5
    angle: Floats = np.arctan(np.where(p_xy > 0, -p_yy, p_yy) / denominator)
    return angle


def _triangle(values: Floats, radius: int) -> Floats:
    """Smooth with the weights 1, 2, .., radius + 1, .., 2, 1 along both axes; edges mirrored."""
    from scipy.ndimage import correlate1d

    weights = radius + 1 - np.abs(np.arange(-radius, radius + 1))
    for axis in (0, 1):
        values = correlate1d(values, weights / weights.sum(), axis, mode="reflect")
    return values


def _gradient(values: Floats) -> tuple[Floats, Floats]:
    """Return central differences down and along the rows; 0 along an axis of one pixel."""
    down, along = (
        np.gradient(values, axis=axis) if values.shape[axis] > 1 else np.zeros_like(values)
        for axis in (0, 1)
    )
    return down, along


def _fade(length: int, border: int) -> Floats:
    """Return what values at each place along a side are multiplied by, [length]."""
    place = np.arange(length)
    from_frame = np.minimum(place, place[::-1])
    return np.minimum(from_frame / border, 1.0) if border else np.ones(length)
