"""How alike the blocks of a vision transformer are: measures of attention collapse."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.layers import has_attention_maps, reading_attention_maps


@dataclass(frozen=True)
class Collapse:
    """What the blocks of a network have in common, as means over pictures.

    Matrices compare layers p and q, both in their order, [L, L]; entries of layers further apart
    than ``window`` are NaN, and so are those of layers whose maps differ in shape.

    Attributes:
        layers: names of the L attention modules.
        attention_similarity: cosine between what token t contributes in head h of both layers, the
            columns A[h, :, t] of their maps, mean over heads and tokens. 1 on the diagonal.
        similar_share: share of (head, token) whose cosine is above ``threshold``.
        feature_similarity: cosine between the same token after both layers' blocks, mean over
            tokens.
        effective_rank: of the tokens after each layer's block, [L]: exp of the entropy of their
            normalised singular values, from 1 (all tokens along one line) to min(N, C).
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
) -> Collapse:
    """Measure how alike the blocks of a vision transformer are, in one pass over pictures.

    In deep vision transformers the attention maps of successive blocks become nearly the same, and
    features stop changing: attention collapse. Of each batch the maps of ``window`` + 1 layers are
    kept at a time (of all L without a window), and nothing but sums remains of it, so that memory
    does not grow with the number of pictures; the result does not depend on how they are batched.

    Sources: Zhou et al. 2021, arXiv:2103.11886, section 3, for the similarities. Its threshold and
    cut are arguments here; its text compares a block with those around it, ``similar_blocks`` with
    the one before. Effective rank: Roy and Vetterli 2007. Head diversity is ours.

    Args:
        model: any network whose attention is timm's ``Attention`` or has a method
            ``attention_maps``, such as DeepViT; it runs in evaluation mode.
        batches: pictures as the network wants them, [B, C, H, W] each.
        window: how many layers before each one it is compared with; None is all.
        threshold: cosine above which a (head, token) is similar, in [-1, 1].
        cut: share of similar ones above which a block is similar to the one before, in [0, 1].
        class_token: measure the features of class and register tokens too, not patches alone.

    Raises:
        ValueError: no pictures, no attention whose maps can be read, a value out of its range.

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
    sums, pictures = _Sums(window, threshold), 0
    was_training = [module for module in model.modules() if module.training]
    first = 0 if class_token else getattr(model, "num_prefix_tokens", 0)
    try:
        model.eval()
        # A compiled network would run without the hooks.
        with (
            torch.compiler.set_stance("force_eager"),
            reading_attention_maps(model, sums.add_maps),
            _reading_blocks(model, lambda name, x: sums.add_features(name, x[:, first:])),
        ):
            for batch in batches:
                sums.begin()
                model(batch)
                pictures += len(batch)
    finally:
        for module in was_training:
            module.training = True
    if pictures == 0:
        raise ValueError("attention collapse is measured on pictures, and there are none")
    layers = [*sums.per_layer["head_diversity"]]
    matrices = {key: _matrix(values, layers, pictures) for key, values in sums.per_pair.items()}
    vectors = {
        key: torch.tensor([values[name] / pictures for name in layers])
        for key, values in sums.per_layer.items()
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


class _Sums:
    """Sums over pictures of what layers, and pairs of layers, have; keeps maps of a window."""

    def __init__(self, window: int | None, threshold: float) -> None:
        self.window, self.threshold = window, threshold
        self.per_pair: dict[str, dict[tuple[str, str], float]] = {
            key: {} for key in ("attention_similarity", "similar_share", "feature_similarity")
        }
        self.per_layer: dict[str, dict[str, float]] = {"effective_rank": {}, "head_diversity": {}}
        self.begin()

    def begin(self) -> None:
        """Forget the maps and features of the pictures before."""
        self._maps: dict[str, Tensor] = {}
        self._features: dict[str, Tensor] = {}

    def add_maps(self, name: str, maps: Tensor) -> None:
        """Compare maps [B, H, N, N] with those of the layers before."""
        columns = F.normalize(maps, dim=2)
        for other, kept in self._with(self._maps, name, columns):
            cosine = (kept * columns).sum(2)  # [B, H, N]
            self._add("attention_similarity", (name, other), cosine)
            self._add("similar_share", (name, other), (cosine > self.threshold).double())
        heads = F.normalize(maps.flatten(2), dim=2)
        number = heads.shape[1]
        cosines = heads @ heads.transpose(1, 2)
        others = cosines.sum((1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(1)
        pairs = number * (number - 1) or torch.nan
        self._add_layer("head_diversity", name, 1 - others / pairs)

    def add_features(self, name: str, x: Tensor) -> None:
        """Compare tokens [B, N, C] with those after the layers before."""
        x = x.float()
        tokens = F.normalize(x, dim=2)
        for other, kept in self._with(self._features, name, tokens):
            self._add("feature_similarity", (name, other), (kept * tokens).sum(2))
        singular = torch.linalg.svdvals(x)
        p = singular / singular.sum(1, keepdim=True)
        self._add_layer("effective_rank", name, torch.special.entr(p).sum(1).exp())

    def _with(
        self, kept: dict[str, Tensor], name: str, new: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Keep what is new; yield the layers to compare it with: itself and a window before."""
        kept[name] = new
        while self.window is not None and len(kept) > self.window + 1:
            del kept[next(iter(kept))]
        yield from ((other, value) for other, value in kept.items() if value.shape == new.shape)

    def _add(self, key: str, pair: tuple[str, str], values: Tensor) -> None:
        own = self.per_pair[key]
        total = values.flatten(1).mean(1, dtype=torch.float64).sum().item()
        own[pair] = own.get(pair, 0.0) + total

    def _add_layer(self, key: str, name: str, values: Tensor) -> None:
        own = self.per_layer[key]
        own[name] = own.get(name, 0.0) + values.double().sum().item()


@contextmanager
def _reading_blocks(model: nn.Module, read: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``read(attention's name, tokens [B, N, C])`` after each block that has an attention.

    Raises:
        ValueError: what is around an attention returns no tokens.
    """

    def hook(name: str) -> Any:
        def after(block: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim != 3:
                raise ValueError(
                    f"the block around {name!r}, {type(block).__name__}, returns no tokens "
                    "[B, N, C]: features are measured there"
                )
            read(name, output)

        return after

    handles = [
        model.get_submodule(name.rpartition(".")[0]).register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if has_attention_maps(module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _matrix(sums: Mapping[tuple[str, str], float], layers: Sequence[str], pictures: int) -> Tensor:
    """Return means [L, L] of sums by pairs of layers, both ways; NaN where there is none."""
    place = {name: i for i, name in enumerate(layers)}
    matrix = torch.full((len(layers), len(layers)), torch.nan)
    for (a, b), value in sums.items():
        matrix[place[a], place[b]] = matrix[place[b], place[a]] = value / pictures
    return matrix
