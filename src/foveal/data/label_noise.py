"""Training labels made wrong on purpose, to measure what a method makes of them.

Which labels become wrong depends on the targets in their order, the number of classes, rate, kind
and seed, on nothing else.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.names import unknown

KINDS = ("symmetric", "pair")


def noisy_targets(
    targets: NDArray[Any], num_classes: int, rate: float, kind: str = "symmetric", seed: int = 0
) -> NDArray[np.int64]:
    """Return targets of which a share of each class is wrong.

    Of the n pictures of a class, ``rate * n`` (halves are rounded up) get another label. One seed
    chooses the same pictures whatever the kind, and at a higher rate these and more.

    Args:
        targets: class indices, [N] in [0, K).
        num_classes: K, at least 2; also classes that no picture has are drawn.
        rate: share of wrong labels, in [0, 1).
        kind: ``symmetric`` draws one of the K - 1 other classes, each with the same probability;
            ``pair`` takes the next class, and the first after the last.
        seed: of the draw.

    Returns:
        int64 [N]; ``targets`` is left as it was.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> noisy_targets(np.array([0, 0, 1, 1, 2, 2]), 3, rate=0.5, kind="pair")
        array([0, 1, 2, 1, 0, 2])
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind of label noise", kind, KINDS))
    if not 0 <= rate < 1:
        raise ValueError(f"the rate of label noise must lie in [0, 1), not {rate!r}")
    if num_classes < 2:
        raise ValueError(f"label noise needs at least two classes, not {num_classes}")
    if targets.ndim != 1:
        raise ValueError(
            f"label noise needs one class a picture, [N], not targets {list(targets.shape)}"
        )
    noisy = targets.astype(np.int64)
    if len(noisy) and not (noisy.min() >= 0 and noisy.max() < num_classes):
        raise ValueError(
            f"targets must lie in [0, {num_classes}), not {noisy.min()} to {noisy.max()}"
        )
    # Not the numbers that the splits are drawn with, whose seed is often the same. Uniform floats
    # are the part of NumPy's generators whose stream is most settled.
    rng = np.random.default_rng([seed, 1])
    turn, other = rng.random(len(noisy)), rng.random(len(noisy))
    shift = np.ones(len(noisy), dtype=np.int64)
    if kind == "symmetric":
        shift += (other * (num_classes - 1)).astype(np.int64)
    for k in range(num_classes):
        members = np.flatnonzero(targets == k)
        count = int(rate * len(members) + 0.5 + 1e-9)  # 0.29 * 50 is a little below 14.5
        chosen = members[np.argsort(turn[members], kind="stable")[:count]]
        noisy[chosen] = (k + shift[chosen]) % num_classes
    return noisy
