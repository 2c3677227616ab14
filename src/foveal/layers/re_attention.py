"""Re-attention: a layer's attention maps mixed over the heads, and normalised, before they act."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self, get_args

import torch
import torch.distributed
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

Norm = Literal["batch", "layer", "none"]
ThetaInit = Literal["conv", "identity"]

_BATCH = nn.modules.batchnorm._BatchNorm  # nn.SyncBatchNorm too
_ROWS_AT_ONCE = 256  # queries of one step, where memory is saved in evaluation


class ReAttention(nn.Module):
    """Self-attention whose maps are mixed over the heads and normalised before they meet V.

    With A_h = softmax(scale * Q_h K_h^T), a learned H x H matrix theta and biases b:

        M_g = sum_h theta[g, h] A_h + b_g,    y = proj(concat_g(r * Norm(M)_g V_g))

    In deep vision transformers the maps of successive layers become nearly the same; mixed ones
    stay different. ``norm="batch"`` is the paper's: BatchNorm per head over pictures and all N x N
    entries.

    Every row of a softmax sums to 1, so the mean of M_g is known without looking:
    (sum_h theta[g, h]) / N + b_g. Three things follow. In training with beta = 0, the rows of every
    normalised map sum to 0: the layer contrasts tokens rather than averages them. The biases have
    no effect in training. And running means belong to one number of tokens: the buffer ``tokens``
    holds it, and at another number they are moved by the closed form, so that pictures of another
    size do not silently break the network. (State dicts of the authors' code have no such key, and
    are refused without it; ``foveal.load_official`` adds it.) The variance cannot be moved so;
    after a change of size ``torch.optim.swa_utils.update_bn`` measures it anew.

    Source: Zhou et al. 2021, arXiv:2103.11886, section 4, and the authors' code; key names are
    theirs (``qkv``, ``reatten_matrix``, ``var_norm``, ``proj``).
    Differs from the official code: nothing in its numbers at the number of tokens that the weights
    are for (see the fixtures). Maps are centred as they are mixed, and the rest of the
    normalisation acts on the output, so that no normalised N x N map is ever stored, and in
    evaluation none of it costs anything per entry; maps are returned by :meth:`attention_maps`
    alone; mixing, its parameters and statistics are float32 at least, whatever the input's type,
    also after ``.half()``.

    Args:
        dim: C, width of the tokens, in and out.
        num_heads: H; divides ``dim``.
        qkv_bias: biases of queries, keys and values.
        qk_scale: factor on Q K^T; None is (C / H) ** -0.5.
        attn_drop: dropout on the softmax maps.
        proj_drop: dropout on the output.
        apply_transform: mix and normalise; without it this is plain attention.
        transform_scale: r = scale, as in the authors' DeepViT-S; otherwise r = 1.
        norm: ``batch``; ``layer``, LayerNorm over the heads of each entry (a common
            reimplementation's); or ``none``, r * M as it is.
        theta_init: ``conv``, PyTorch's draw for a 1x1 convolution, as the authors have it; or
            ``identity``, theta = I and b = 0: without norm, the layer then is plain attention.
        save_memory: no N x N map is kept for the backward pass, which computes them again, and in
            evaluation only ``256`` rows of each exist at a time.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, N, C], any N >= 1; output the same.
        In training BatchNorm needs more than one value per head: a single picture of one token is
        refused.

    Raises:
        ValueError: ``dim`` is no multiple of ``num_heads``, or a value is out of its range.

    Example:
        >>> ReAttention(48, num_heads=4)(torch.rand(2, 10, 48)).shape
        torch.Size([2, 10, 48])
    """

    tokens: torch.Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        apply_transform: bool = True,
        transform_scale: bool = False,
        norm: Norm = "batch",
        theta_init: ThetaInit = "conv",
        save_memory: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        if norm not in get_args(Norm):
            raise ValueError(f"norm must be 'batch', 'layer' or 'none', not {norm!r}")
        if theta_init not in get_args(ThetaInit):
            raise ValueError(f"theta_init must be 'conv' or 'identity', not {theta_init!r}")
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        # Rounded statistics, multiplied by up to 1 / sqrt(eps) = 316, would outweigh the maps.
        exact = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        mixing: dict[str, Any] = {"device": device, "dtype": exact}
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.scale = self.head_dim**-0.5 if qk_scale is None else qk_scale
        self.reatten_scale = self.scale if transform_scale else 1.0
        self.apply_transform = apply_transform
        self.theta_init = theta_init
        self.save_memory = save_memory
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, **made)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, **made)
        self.proj_drop = nn.Dropout(proj_drop)
        if apply_transform:
            # Never called: they hold the parameters under the authors' names.
            self.reatten_matrix: Any = nn.Conv2d(num_heads, num_heads, 1, **mixing)
            self.var_norm: Any
            if norm == "batch":
                self.var_norm = nn.BatchNorm2d(num_heads, **mixing)
                zero = torch.zeros((), dtype=torch.long, device=device)
                self.register_buffer("tokens", zero)  # 0: not known
            elif norm == "layer":
                self.var_norm = nn.LayerNorm(num_heads, **mixing)
            else:
                self.var_norm = nn.Identity()
            if theta_init == "identity":
                self.reset_parameters()

    @classmethod
    def replacing(
        cls,
        attention: nn.Module,
        *,
        transform_scale: bool = False,
        norm: Norm = "batch",
        theta_init: ThetaInit = "conv",
        save_memory: bool = False,
    ) -> "ReAttention":
        """Return re-attention that takes over the parts of a plain attention.

        Args:
            attention: timm's ``Attention`` or one like it, with ``qkv``, ``proj``, ``num_heads``,
                ``scale``, ``attn_drop``, ``proj_drop``, and ``q_norm`` and ``k_norm`` if it has
                these. Its modules become the new layer's; it is not to be used on.
            transform_scale: r = scale.
            norm: as of the layer.
            theta_init: as of the layer.
            save_memory: as of the layer.
        """
        old: Any = attention
        layer = cls(
            old.qkv.out_features // 3,
            old.num_heads,
            qk_scale=old.scale,
            transform_scale=transform_scale,
            norm=norm,
            theta_init=theta_init,
            save_memory=save_memory,
            device=old.qkv.weight.device,
            dtype=old.qkv.weight.dtype,
        )
        for name in ("qkv", "attn_drop", "proj", "proj_drop", "q_norm", "k_norm"):
            if hasattr(old, name):
                setattr(layer, name, getattr(old, name))
        for module in (layer, layer.reatten_matrix, layer.var_norm):
            module.training = old.training
        return layer

    def reset_parameters(self) -> None:
        """Draw theta and b anew, as ``theta_init`` says, and forget all statistics."""
        if not self.apply_transform:
            return
        matrix = self.reatten_matrix
        matrix.reset_parameters()
        if self.theta_init == "identity":
            with torch.no_grad():
                matrix.weight.copy_(torch.eye(self.num_heads)[:, :, None, None])
                matrix.bias.zero_()
        if not isinstance(self.var_norm, nn.Identity):
            self.var_norm.reset_parameters()
        if "tokens" in self._buffers:
            self.tokens.zero_()

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        """Return the attended tokens, [B, N, C].

        Raises:
            ValueError: x is not [B, N, C], or a mask is given, as timm's blocks can: a masked map
                has other statistics.
        """
        if x.ndim != 3:
            raise ValueError(f"ReAttention needs tokens [B, N, C], not {list(x.shape)}")
        if attn_mask is not None or is_causal:
            raise ValueError("ReAttention takes no mask: its statistics are those of whole maps")
        q, k, v = self._project(x)
        if not self.apply_transform:
            dropout = self.attn_drop.p if self.attn_drop.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
        elif self._by_rows:
            rows = torch.split(q, _ROWS_AT_ONCE, dim=2)
            parts = [self._attend(some, k, v) for some in rows]
            y = self._normalise(torch.cat([part[0] for part in parts], dim=2), v, parts[0][2])
        else:
            if self.save_memory:
                mixed, mean, variance = checkpoint(self._attend, q, k, v, use_reentrant=False)
            else:
                mixed, mean, variance = self._attend(q, k, v)
            y = self._normalise(mixed, v, variance)
            if self._measures and y.numel():
                self._remember(mean.detach(), variance.detach(), y.shape[0], y.shape[2])
        y = y.to(q.dtype).transpose(1, 2).flatten(2)
        result: torch.Tensor = self.proj_drop(self.proj(y))
        return result

    def attention_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps that multiply V, a row for each query, [B, H, N, N].

        They are mixed, normalised as the layer's mode says and scaled by r, in float32 at least and
        without dropout; running statistics stay as they are.
        """
        q, k, _ = self._project(x)
        with _without_autocast(x):
            maps = self._softmax(q, k)
            if not self.apply_transform:
                return maps
            mixed, _, variance = self._mix(maps, dropped=False)
            gain, shift = self._affine(variance)
            return gain[:, None, None] * mixed + shift[:, None, None]

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values, [B, H, N, d] each."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.q_norm(q), self.k_norm(k), v

    def _softmax(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        logits = (q * self.scale) @ k.transpose(2, 3)
        # Entries near 1 / N lie at the end of what float16 has.
        return logits.softmax(3, dtype=torch.promote_types(logits.dtype, torch.float32))

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the centred mixed maps times V, [B, H, n, d], and their mean and variance [H]."""
        with _without_autocast(q):
            maps = self.attn_drop(self._softmax(q, k))
            dropped = self.attn_drop.training and self.attn_drop.p > 0
            mixed, mean, variance = self._mix(maps, dropped)
            return mixed @ v.to(maps.dtype), mean, variance

    def _normalise(
        self, mixed: torch.Tensor, v: torch.Tensor, variance: torch.Tensor
    ) -> torch.Tensor:
        """Return (gain M + shift 1) V of M V, with no pass over N x N entries."""
        gain, shift = self._affine(variance)
        total = v.sum(2, keepdim=True, dtype=mixed.dtype)
        return gain[:, None, None] * mixed + shift[:, None, None] * total

    def _affine(self, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gain [H] and shift [H] that make of M what multiplies V."""
        norm, scale = self.var_norm, self.reatten_scale
        if not isinstance(norm, _BATCH):
            return scale * torch.ones_like(variance), torch.zeros_like(variance)
        weight, bias = norm.weight.to(variance.dtype), norm.bias.to(variance.dtype)
        return scale * weight * (variance + norm.eps).rsqrt(), scale * bias

    def _mix(
        self, maps: torch.Tensor, dropped: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mix maps [B, H, n, N] over the heads, where n are some of their N rows.

        Returns:
            M [B, H, n, N], for BatchNorm centred, for LayerNorm normalised; mean [H] and variance
            [H] of theta * A + b, by which BatchNorm normalises.
        """
        norm = self.var_norm
        theta = self.reatten_matrix.weight[:, :, 0, 0].to(maps.dtype)
        bias = self.reatten_matrix.bias.to(maps.dtype)
        ones = torch.ones_like(bias)
        if not isinstance(norm, _BATCH):
            mixed = _mixed(theta, maps, bias)
            if isinstance(norm, nn.LayerNorm):
                mixed = norm(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).to(maps.dtype)
            return mixed, 0 * ones, ones
        tokens = maps.shape[3]
        if self._measures:
            if self._processes == 1:
                _check_more_than_one(maps)
            # Rows sum to 1 but for dropout, so only the variance needs a look at the maps.
            count = max(maps.shape[0] * tokens**2, 1)
            average = ones / tokens
            if dropped:
                average = self._over_processes(maps.sum((0, 2, 3)), count)
            mean = theta @ average
            # b cancels; it stays in the graph, as distributed training wants all parameters.
            mixed = _mixed(theta, maps, 0 * bias - mean)
            squares = torch.linalg.vector_norm(mixed.flatten(2), dim=2).square().sum(0)
            variance = self._over_processes(squares, count)
            mean = mean + bias
        else:
            mean = self._running_mean(tokens, theta)
            variance = norm.running_var.to(maps.dtype)  # type: ignore[union-attr]
            mixed = _mixed(theta, maps, bias - mean)
        return mixed, mean, variance

    def _running_mean(self, tokens: int, theta: torch.Tensor) -> torch.Tensor:
        """Return the running mean [H] moved to a number of tokens, as far as its own is known."""
        norm = self.var_norm
        per_token = 1 / tokens - 1 / self.tokens.clamp(min=1).to(theta.dtype)
        moved = torch.where(self.tokens > 0, theta.sum(1) * per_token, torch.zeros_like(theta[0]))
        mean: torch.Tensor = norm.running_mean.to(theta.dtype) + moved
        return mean

    @torch.no_grad()
    def _remember(
        self, mean: torch.Tensor, variance: torch.Tensor, pictures: int, tokens: int
    ) -> None:
        """Move the running statistics towards those of a batch, as BatchNorm does."""
        norm = self.var_norm
        norm.num_batches_tracked.add_(1)
        weight = norm.momentum
        if weight is None:  # a cumulative average, as update_bn wants it
            weight = 1 / norm.num_batches_tracked.to(mean.dtype)
        theta = self.reatten_matrix.weight[:, :, 0, 0].to(mean.dtype)
        before = self._running_mean(tokens, theta)
        number = pictures * tokens**2 * self._processes
        unbiased = variance * (number / (number - 1))
        norm.running_mean.copy_(before + weight * (mean - before))
        norm.running_var.copy_(norm.running_var + weight * (unbiased - norm.running_var))
        self.tokens.fill_(tokens)

    @property
    def _measures(self) -> bool:
        """Whether the next maps are normalised by statistics of their own batch."""
        return isinstance(self.var_norm, _BATCH) and self.var_norm.training

    @property
    def _processes(self) -> int:
        """How many processes share their statistics: several with SyncBatchNorm alone."""
        if not isinstance(self.var_norm, nn.SyncBatchNorm) or not _initialized():
            return 1
        return torch.distributed.get_world_size(self.var_norm.process_group)

    @property
    def _by_rows(self) -> bool:
        """Whether rows of the maps are computed some at a time; an exported graph has no loop."""
        alone = not self._measures and not torch.is_grad_enabled()
        return self.save_memory and alone and not torch.compiler.is_exporting()

    def _over_processes(self, total: torch.Tensor, count: int) -> torch.Tensor:
        """Return the mean [H] of all processes' values: here ``count``, whose sum is given."""
        if self._processes == 1:
            return total / count
        from torch.distributed.nn.functional import all_reduce

        both = torch.cat([total, total.new_tensor([count])])
        summed = all_reduce(both, group=self.var_norm.process_group)  # type: ignore[no-untyped-call]
        mean: torch.Tensor = summed[:-1] / summed[-1]
        return mean

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move or convert the layer; theta and the norm stay in float32 at least."""

        def exactly(tensor: torch.Tensor) -> torch.Tensor:
            changed = fn(tensor)
            low = changed.is_floating_point() and changed.dtype.itemsize < 4
            return tensor.to(changed.device) if low else changed

        if recurse:
            for name, child in self.named_children():
                own: Any = child
                own._apply(exactly if name in ("reatten_matrix", "var_norm") else fn)
        return super()._apply(fn, recurse=False)  # type: ignore[no-untyped-call,no-any-return]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *args: Any
    ) -> None:
        missing, _, complaints = args
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *args)
        if f"{prefix}tokens" in missing and f"{prefix}var_norm.running_mean" in state_dict:
            # Without it, pictures of another size would silently be normalised wrongly.
            missing.remove(f"{prefix}tokens")
            complaints.append(
                f"{prefix}tokens is missing, the number of tokens that the running means are for: "
                "load the authors' checkpoints with foveal.load_official, or add it to the state "
                "dict as a tensor"
            )


def _initialized() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _mixed(theta: torch.Tensor, maps: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return theta [H, H] times maps [B, H, n, N] over the heads, plus a bias [H]."""
    batch, heads = maps.shape[:2]
    mixed = torch.baddbmm(
        bias[:, None].expand(batch, heads, 1), theta.expand(batch, -1, -1), maps.flatten(2)
    )
    return mixed.view_as(maps)


def _without_autocast(x: torch.Tensor) -> AbstractContextManager[Any]:
    """Compute as the tensors' types say, also under autocast."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _check_heads(dim: int, num_heads: int) -> None:
    if num_heads < 1 or dim < 1:
        raise ValueError(f"dim and num_heads must be at least 1, not {dim} and {num_heads}")
    if dim % num_heads:
        below, above = dim // num_heads * num_heads, (dim // num_heads + 1) * num_heads
        near = f"{below} and {above} are" if below else f"{above} is"
        raise ValueError(f"dim must be a multiple of num_heads={num_heads}, as {near}, not {dim}")


def _check_more_than_one(maps: torch.Tensor) -> None:
    if maps.shape[0] == 1 and maps.shape[2] * maps.shape[3] == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training: BatchNorm cannot normalise the "
            "one entry of a map of one token in a batch of one"
        )
