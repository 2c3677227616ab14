"""How alike the blocks of a vision transformer are: measures of attention collapse."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.explanation.state import keeping_state
from foveal.layers import has_attention_maps, reading_attention_maps

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Collapse:
    """What the blocks of a network have in common, as means over pictures.

    Matrices compare layers p and q, both in their order, [L, L]; entries of layers further apart
    than ``window`` are NaN, and so are those of layers whose maps, or tokens, differ in shape.

    Attributes:
        layers: names of the L attention modules, in the order in which they run.
        attention_similarity: cosine between what token t contributes in head h of both layers, the
            columns A[h, :, t] of their maps, mean over heads and tokens. 1 on the diagonal, but for
            tokens that contribute nothing at all, which count as 0.
        similar_share: share of (head, token) whose cosine is above ``threshold``.
        feature_similarity: cosine between the same token after both layers' blocks, mean over
            tokens; NaN where a block does not return tokens [B, N, C].
        effective_rank: of the tokens after each layer's block, [L]: exp of the entropy of their
            normalised singular values, from 1 (all tokens along one line) to min(N, C); NaN also
            where a token is not finite or all are zero.
        head_diversity: 1 - mean cosine between the maps of different heads of a layer, [L]; NaN
            with one head.
        similar_blocks: how many layers have a ``similar_share`` above ``cut`` with the one before.
        pictures: how many were looked at.
        window: layers that are compared with each one; None is all of them.
        threshold: of a cosine that counts as similar.
        cut: of a share of similar ones that makes a block similar.
        class_token: whether prefix tokens are among those whose features are measured.
    """

    layers: tuple[str, ...]
    attention_similarity: Tensor
    similar_share: Tensor
    feature_similarity: Tensor
    effective_rank: Tensor
    head_diversity: Tensor
    similar_blocks: int
    pictures: int
    window: int | None
    threshold: float
    cut: float
    class_token: bool

    @property
    def with_previous(self) -> Tensor:
        """Attention similarity of each layer but the first with the one before it, [L - 1]."""
        return self.attention_similarity.diagonal(-1)


@torch.no_grad()
def attention_collapse(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    window: int | None = None,
    threshold: float = 0.9,
    cut: float = 0.9,
    class_token: bool = False,
    at_once: int = 4,
) -> Collapse:
    """Measure how alike the blocks of a vision transformer are, in one pass over pictures.

    In deep vision transformers the attention maps of successive blocks become nearly the same, and
    features stop changing: attention collapse.

    Memory does not grow with the number of pictures, nor with the size of the batches: the maps of
    ``window`` + 1 layers (without a window, of all L) are kept for ``at_once`` pictures, and of
    those before nothing but sums, in float64. The result does not depend on how the pictures are
    batched.

    Sources: Zhou et al. 2021, arXiv:2103.11886, section 3, for the similarities. Its threshold and
    cut are arguments here; its text compares a block with those around it, ``similar_blocks`` with
    the one before. Effective rank: Roy and Vetterli 2007. Head diversity is ours.

    Args:
        model: any network with attention that :func:`foveal.layers.attention_maps` can read: timm's
            plain, rotary, EVA's and BEiT's, and DeepViT's; it runs in evaluation mode. A block is
            what directly encloses an attention, or itself where nothing but the network does.
        batches: pictures as the network wants them, [B, C, H, W] each.
        window: how many layers before each one it is compared with; None is all.
        threshold: cosine above which a (head, token) is similar, in [-1, 1].
        cut: share of similar ones above which a block is similar to the one before, in [0, 1].
        class_token: measure the features of class and register tokens too, not patches alone; they
            are the first ``num_prefix_tokens`` of the network, and are always in the maps.
        at_once: pictures that the network sees at a time.

    Raises:
        ValueError: no pictures, no attention whose maps can be read, a value out of its range.
        TypeError: a batch is no tensor.

    Example:
        >>> from timm.models.vision_transformer import VisionTransformer
        >>> vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
        >>> attention_collapse(vit, [torch.rand(2, 3, 32, 32)]).attention_similarity.shape
        torch.Size([3, 3])
    """
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1 layer or None, not {window}")
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [-1, 1], not {threshold}")
    if not 0 <= cut <= 1:
        raise ValueError(f"cut must lie in [0, 1], not {cut}")
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1 picture, not {at_once}")
    sums, pictures = _Sums(window, threshold), 0
    first = 0 if class_token else _prefix_tokens(model)
    # A compiled network would run without the hooks.
    with (
        keeping_state(model, training=False),
        torch.compiler.set_stance("force_eager"),
        reading_attention_maps(model, sums.add_maps),
        _reading_blocks(model, lambda name, x: sums.add_features(name, x[:, first:])),
    ):
        for batch in batches:
            _check_batch(batch)
            for some in torch.split(batch, at_once):
                sums.begin()
                model(some.clone())  # which the network may change in place
            pictures += len(batch)
    if pictures == 0:
        raise ValueError("attention collapse is measured on pictures, and there are none")
    layers = [*sums.head_diversity.totals]
    matrices = {
        "attention_similarity": _matrix(sums.attention_similarity, layers),
        "similar_share": _matrix(sums.similar_share, layers),
        "feature_similarity": _matrix(sums.feature_similarity, layers),
    }
    vectors = {
        "effective_rank": torch.tensor([sums.effective_rank.mean(name) for name in layers]),
        "head_diversity": torch.tensor([sums.head_diversity.mean(name) for name in layers]),
    }
    previous = matrices["similar_share"].diagonal(-1)
    return Collapse(
        layers=tuple(layers),
        **matrices,
        **vectors,
        similar_blocks=int((previous > cut).sum()),
        pictures=pictures,
        window=window,
        threshold=threshold,
        cut=cut,
        class_token=class_token,
    )


class _Means(Generic[_Key]):
    """Means over pictures, of numbers that come a batch at a time, under a key each."""

    def __init__(self) -> None:
        self.totals: dict[_Key, float] = {}
        self._counts: dict[_Key, int] = {}

    def add(self, key: _Key, values: Tensor) -> None:
        """Add values [B, ...], of which those of one picture count together as one."""
        each = values.double().flatten(1).mean(1) if values.ndim > 1 else values.double()
        self.totals[key] = self.totals.get(key, 0.0) + each.sum().item()
        self._counts[key] = self._counts.get(key, 0) + len(values)

    def mean(self, key: _Key) -> float:
        """Return the mean, NaN for a key of which nothing came."""
        return self.totals.get(key, 0.0) / (self._counts.get(key) or torch.nan)


class _Sums:
    """What layers, and pairs of layers, have; keeps the maps of a window, and of one batch."""

    def __init__(self, window: int | None, threshold: float) -> None:
        self.window, self.threshold = window, threshold
        self.attention_similarity = _Means[frozenset[str]]()
        self.similar_share = _Means[frozenset[str]]()
        self.feature_similarity = _Means[frozenset[str]]()
        self.effective_rank = _Means[str]()
        self.head_diversity = _Means[str]()
        self.begin()

    def begin(self) -> None:
        """Forget the maps and features of the pictures before."""
        self._maps: dict[str, Tensor] = {}
        self._features: dict[str, Tensor] = {}

    def add_maps(self, name: str, maps: Tensor) -> None:
        """Compare maps [B, H, N, N] with those of the layers before."""
        maps = _exact(maps)
        columns = F.normalize(maps, dim=2)
        for other, kept in self._with(self._maps, name, columns):
            cosine = (kept * columns).sum(2)  # [B, H, N]
            self.attention_similarity.add(frozenset((name, other)), cosine)
            above = (cosine > self.threshold).to(cosine.dtype)
            self.similar_share.add(
                frozenset((name, other)), torch.where(cosine.isnan(), cosine, above)
            )
        # The sum of all cosines between heads is the squared length of the heads' sum.
        heads = F.normalize(maps.flatten(2), dim=2)
        number = heads.shape[1]
        every, own = heads.sum(1).square().sum(1), heads.square().sum((1, 2))
        pairs = number * (number - 1) or torch.nan
        self.head_diversity.add(name, 1 - (every - own) / pairs)

    def add_features(self, name: str, x: Tensor) -> None:
        """Compare tokens [B, N, C] with those after the layers before."""
        x = _exact(x)
        tokens = F.normalize(x, dim=2)
        for other, kept in self._with(self._features, name, tokens):
            self.feature_similarity.add(frozenset((name, other)), (kept * tokens).sum(2))
        # The decomposition refuses what is not finite.
        finite = x.isfinite().all(2).all(1)
        singular = torch.linalg.svdvals(x.where(finite[:, None, None], 0))
        p = singular / singular.sum(1, keepdim=True)
        self.effective_rank.add(name, torch.special.entr(p).sum(1).exp())

    def _with(
        self, kept: dict[str, Tensor], name: str, new: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Keep what is new; yield the layers to compare it with: itself and a window before."""
        kept[name] = new
        while self.window is not None and len(kept) > self.window + 1:
            del kept[next(iter(kept))]
        yield from ((other, value) for other, value in kept.items() if value.shape == new.shape)


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _prefix_tokens(model: nn.Module) -> int:
    """Return how many class and register tokens a network, or one around it, puts first."""
    numbers = (getattr(module, "num_prefix_tokens", None) for module in model.modules())
    return next((number for number in numbers if number is not None), 0)


def _check_batch(batch: Any) -> None:
    if not isinstance(batch, Tensor):
        raise TypeError(
            f"each batch must be a tensor of pictures [B, C, H, W], not {type(batch).__name__}: of "
            "pictures with labels, the pictures alone"
        )
    if batch.ndim != 4:
        raise ValueError(
            f"each batch must be pictures [B, C, H, W], not of shape {list(batch.shape)}: one "
            "batch is given as a list of one"
        )


@contextmanager
def _reading_blocks(model: nn.Module, read: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``read(attention's name, tokens [B, N, C])`` after each block that returns tokens."""

    def hook(name: str) -> Any:
        def after(block: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 3:
                read(name, output)

        return after

    handles = [
        _block_around(model, name).register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if has_attention_maps(module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _block_around(model: nn.Module, name: str) -> nn.Module:
    """Return what encloses an attention, lists aside; in a network without blocks, itself."""
    parent = name.rpartition(".")[0]
    while isinstance(model.get_submodule(parent), nn.Sequential | nn.ModuleList) and parent:
        parent = parent.rpartition(".")[0]
    return model.get_submodule(parent or name)


def _matrix(means: _Means[frozenset[str]], layers: Sequence[str]) -> Tensor:
    """Return means [L, L] of pairs of layers; NaN where there is none."""
    return torch.tensor([[means.mean(frozenset((a, b))) for b in layers] for a in layers])
