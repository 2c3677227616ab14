"""Pairing predicted with true boundary pixels, one to one, within a distance.

Of all matchings with the most pairs one of least total distance is found: that is what the
Berkeley benchmark's matcher approximates. Here it is solved exactly, by SciPy, and the result is
always the same.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]


class Pairs(NamedTuple):
    """Candidates: pairs of points that are near enough to be matched.

    Attributes:
        predicted: index of the predicted point of each pair, int64 [P].
        true: index of the true one, int64 [P].
        distance: between the two, float64 [P].
    """

    predicted: Indices
    true: Indices
    distance: NDArray[np.float64]

    def of(self, active: Mask) -> "Pairs":
        """Return the pairs whose predicted point is active, bool [N]."""
        kept = active[self.predicted]
        return Pairs(self.predicted[kept], self.true[kept], self.distance[kept])


def pairs_within(predicted: Indices, true: Indices, distance: float) -> Pairs:
    """Return all pairs of points at most ``distance`` apart.

    Args:
        predicted: [N, 2].
        true: [M, 2].
        distance: in the points' unit, inclusive.
    """
    from scipy.spatial import cKDTree

    if not (len(predicted) and len(true)):
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    reach = distance * (1 + 1e-12)  # a distance that is exactly the limit must not be rounded off
    found = cKDTree(predicted).sparse_distance_matrix(cKDTree(true), reach, output_type="ndarray")
    order = np.lexsort((found["j"], found["i"]))
    return Pairs(found["i"][order], found["j"][order], found["v"][order])


def match(pairs: Pairs) -> tuple[Indices, Indices]:
    """Choose pairs such that no point is in two: as many as can be, then of least total distance.

    Points that are connected by pairs are solved together and apart from all others. Where several
    choices are equally good it is left open which one is returned, but it is always the same.

    Args:
        pairs: each pair of points at most once.

    Returns:
        Indices of the matched predicted points and of their partners, int64 [n] each.

    Example:
        >>> two, one = np.array([[0, 0], [0, 2]]), np.array([[0, 1]])
        >>> predicted, true = match(pairs_within(two, one, distance=1))
        >>> len(predicted), true.tolist()
        (1, [0])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(pairs.predicted):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    predicted, row = np.unique(pairs.predicted, return_inverse=True)
    true, column = np.unique(pairs.true, return_inverse=True)
    nodes = len(predicted) + len(true)
    links = (np.ones(len(row), np.int8), (row, len(predicted) + column))
    count, group_of = connected_components(coo_array(links, (nodes, nodes)), directed=False)
    group = group_of[row]
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.searchsorted(group[order], np.arange(1, count)))
    chosen = np.concatenate([g[_choose(row[g], column[g], pairs.distance[g])] for g in groups])
    return pairs.predicted[chosen], pairs.true[chosen]


def match_boundaries(prediction: Mask, truth: Mask, distance: float) -> tuple[Mask, Mask]:
    """Match the pixels of two boundary maps, as they are, one to one.

    Source: Martin, Fowlkes, Malik 2004, PAMI 26(5), section 3.2. There an approximate solver with
    random outlier edges is used, whose counts vary from call to call and fall a few pixels short.

    Args:
        prediction: bool [H, W].
        truth: bool [H, W].
        distance: largest distance of matched pixels, in pixels, inclusive.

    Returns:
        Which predicted and which true pixels are matched, bool [H, W] each.

    Raises:
        ValueError: the sizes differ.

    Example:
        >>> prediction, truth = np.eye(3, dtype=bool), np.eye(3, k=1, dtype=bool)
        >>> [int(matched.sum()) for matched in match_boundaries(prediction, truth, distance=1)]
        [2, 2]
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            "prediction and truth must have the same size, not "
            f"{list(prediction.shape)} and {list(truth.shape)}"
        )
    points = np.argwhere(prediction), np.argwhere(truth)
    matched = np.zeros_like(prediction, bool), np.zeros_like(truth, bool)
    pairs = pairs_within(*points, distance)
    for mask, where, indices in zip(matched, points, match(pairs), strict=True):
        mask[tuple(where[indices].T)] = True
    return matched


def _choose(row: Indices, column: Indices, distance: NDArray[np.float64]) -> Indices:
    """Return which pairs of one connected group are chosen, [n].

    Sparse assignment must give every row, a predicted point, a partner. So each row gets a column
    of its own, at a price above all that the others may cost; who takes it is unmatched.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, row = np.unique(row, return_inverse=True)
    columns, column = np.unique(column, return_inverse=True)
    n, m = len(rows), len(columns)
    if n == 1:
        return np.array([np.argmin(distance)])
    own = np.arange(n)
    price = (n + 1) * math.ceil(1 + distance.max())  # whole, so that less is rounded
    # Weights begin at 1, since 0 would mean that there is no such pair.
    weights = np.concatenate((distance + 1, np.full(n, price)))
    where = (np.concatenate((row, own)), np.concatenate((column, m + own)))
    matrix = coo_array((weights, where), (n, m + n)).tocsr()
    matched_rows, partners = min_weight_full_bipartite_matching(matrix)
    partner = np.empty(n, np.int64)
    partner[matched_rows] = partners
    return np.flatnonzero(partner[row] == column)
