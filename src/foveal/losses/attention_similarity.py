"""How alike the attention maps of successive blocks are, to be made smaller in training."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F


def attention_similarity(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean cosine similarity of what tokens contribute in successive blocks.

    The column A[h, :, t] of a map is how token t contributes to every output. It is compared with
    the same column one block before, and averaged over pictures, heads, tokens and pairs of blocks.

    Source: Zhou et al. 2021, arXiv:2103.11886, section 3. The authors' code computes another
    measure, :func:`released_attention_similarity`.

    Args:
        maps: of two or more blocks in their order, each [B, H, N, N], a row for each query.

    Returns:
        A scalar in [-1, 1].

    Raises:
        ValueError: fewer than two maps, or maps of different shapes.

    Example:
        >>> same = torch.rand(2, 4, 7, 7)
        >>> round(attention_similarity([same, same]).item(), 4)
        1.0
    """
    _check(maps, 1)
    return _mean_cosine(maps, dim=2)


def released_attention_similarity(maps: Sequence[torch.Tensor], pairs: int) -> torch.Tensor:
    """Return the similarity that the authors' code penalises.

    It compares along the heads, not along the tokens, and the first blocks, although those that
    collapse are the last: mean over all entries of the cosine between A_i[:, i, j] and
    A_{i+1}[:, i, j], of the first ``pairs`` pairs of blocks. Their loss is cross entropy plus 0.1
    times this.

    Source: the authors' code of arXiv:2103.11886.

    Args:
        maps: of the blocks in their order, each [B, H, N, N]; those after the first ``pairs`` + 1
            are not looked at.
        pairs: how many pairs.

    Returns:
        A scalar in [-1, 1].

    Raises:
        ValueError: fewer maps than the pairs need, or maps of different shapes.
    """
    if pairs < 1:
        raise ValueError(f"pairs must be at least 1, not {pairs}")
    maps = maps[: pairs + 1]
    _check(maps, pairs)
    return _mean_cosine(maps, dim=1)


def _mean_cosine(maps: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    # Squares of entries near 1 / N are nothing in float16.
    exact = [m.to(torch.promote_types(m.dtype, torch.float32)) for m in maps]
    cosines = [F.cosine_similarity(a, b, dim=dim).mean() for a, b in pairwise(exact)]
    return torch.stack(cosines).mean()


def _check(maps: Sequence[torch.Tensor], pairs: int) -> None:
    if len(maps) < pairs + 1:
        number = "one pair" if pairs == 1 else f"{pairs} pairs"
        raise ValueError(
            f"{number} of successive maps need the maps of {pairs + 1} blocks, not of {len(maps)}"
        )
    for i, (before, after) in enumerate(pairwise(maps)):
        if before.shape != after.shape:
            raise ValueError(
                f"the maps of successive blocks must have one shape, and those of blocks {i} and "
                f"{i + 1} are {list(before.shape)} and {list(after.shape)}"
            )
