"""A network at work, looked into: the output of one of its layers as a map, and the logits.

The default layer is the one that class activation maps were made for: the last map that the network
computes before it forgets where things are.
"""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from timm.layers import adaptive_avgmax_pool
from torch import Tensor, nn

from foveal.explanation.state import keeping_state
from foveal.names import unknown

pooling: Any = adaptive_avgmax_pool  # annotated too sparsely for the type checker

_POOLING = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    pooling.SelectAdaptivePool2d,
)
_LINEAR = (nn.Linear, nn.Conv2d)
# What a transformer's block calls the norm of its tokens: timm, torchvision.
_FIRST_NORMS = ("norm1", "ln_1")


@dataclass(frozen=True)
class Look:
    """What a network made of pictures.

    Attributes:
        output: of the layer, as it is; the logits' derivatives lead to it if they were asked for.
        logits: [B, K] or [B, K, H, W].
        last_linear: the last linear layer or 1 x 1 convolution that ran.
        channels_last: the layer's maps are [B, h, w, C].
        grid: (h, w) of the map that the network's tokens were made from.
    """

    output: Tensor
    logits: Tensor
    last_linear: nn.Module | None
    channels_last: bool
    grid: tuple[int, int] | None

    def as_map(self, tensor: Tensor) -> Tensor:
        """Return the layer's output, or something of its shape, as [B, C, h, w].

        Tokens [B, N, C] lose those at the beginning that stand for no place.
        """
        if tensor.ndim == 4:
            return tensor.permute(0, 3, 1, 2) if self.channels_last else tensor
        height, width = self.grid or (0, 0)
        tokens = tensor[:, tensor.shape[1] - height * width :]
        return tokens.transpose(1, 2).reshape(len(tensor), -1, height, width)


def plain(model: nn.Module) -> nn.Module:
    """Return the network itself where ``torch.compile`` has wrapped it."""
    return getattr(model, "_orig_mod", model)


def look(model: nn.Module, x: Tensor, layer: str, *, gradients: bool = False) -> Look:
    """Run a network once, in evaluation mode, and return a layer's output and the logits.

    Args:
        model: any network with logits [B, K] or [B, K, H, W]; it is left as it was.
        x: pictures as the network wants them, [B, C, H, W].
        layer: a name in ``model.named_modules()``; of several runs the last counts.
        gradients: let the derivatives of the logits lead to the output. What comes before the
            layer is computed without them and takes no memory.

    Raises:
        ValueError: an unknown layer, one that does not run, or whose output is no map and no
            tokens of one; a network whose output is not one tensor of logits.
        TypeError: a layer that is not given by its name.
    """
    model = plain(model)
    _check_pictures(x)
    modules = dict(model.named_modules())
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the name of a module, not {type(layer).__name__}")
    if layer not in modules or not layer:
        raise ValueError(unknown("layer", layer, [name for name in modules if name]))
    if gradients:
        _check_no_inference_tensors(model)
    outputs: list[Any] = []
    last: list[nn.Module] = []
    grids = PatchGrid()

    def keep(module: nn.Module, args: Any, output: Any) -> Any:
        outputs[:] = [output]
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        kept = output.detach()
        outputs[:] = [kept]
        if gradients:
            kept.requires_grad_()
            torch.set_grad_enabled(True)  # from here on; `run` switches it off again
        # The network goes on with a copy, which it may change in place.
        return kept.clone()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, nn.Linear) or module.kernel_size == (1, 1):
            last[:] = [module]

    handles = [modules[layer].register_forward_hook(keep)]
    for module in modules.values():
        if isinstance(module, _LINEAR):
            handles.append(module.register_forward_hook(note))
        handles.append(module.register_forward_hook(grids))
    try:
        logits = run(model, x)
    finally:
        for handle in handles:
            handle.remove()
    if not outputs:
        raise ValueError(f"layer {layer!r} does not run in {type(model).__name__}: name another")
    output = outputs[0]
    _check_output(model, layer, output, grids.grid, len(x))
    channels_last = _channels_last(model, modules[layer], output)
    return Look(output, logits, last[0] if last else None, channels_last, grids.grid)


def find_layer(model: nn.Module, x: Tensor) -> str:
    """Return the name of the layer that class activation maps are read from by default.

    It is the last map [B, C, h, w] of more than one place that the network computes, pooled maps
    left out; in vision transformers the first norm of the last block, as the patches' tokens after
    it no longer reach the class token; in segmentation networks the last map of their ``backbone``.

    Args:
        model: any network; the first picture runs through it once.
        x: pictures as the network wants them, [B, C, H, W].

    Raises:
        ValueError: there is none; the message names layers that could be meant.

    Example:
        >>> trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        >>> network = nn.Sequential(trunk, nn.Flatten(), nn.Linear(4, 2))
        >>> find_layer(network, torch.rand(1, 3, 8, 8))
        '0.1'
    """
    model = plain(model)
    _check_pictures(x)
    trace = _Trace(model)
    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(trace.pre_hook(name)))
            handles.append(module.register_forward_hook(trace.hook(name)))
    try:
        logits = run(model, x[:1])
    finally:
        for handle in handles:
            handle.remove()
    maps = trace.maps
    if logits.ndim == 4:
        maps = [name for name in maps if "backbone" in name.split(".")]
    elif trace.first_norm:
        return trace.first_norm
    elif trace.goes_on_without_maps:
        maps = []
    if maps:
        return maps[-1]
    height, width = x.shape[2:]
    near = ", ".join(dict.fromkeys(trace.candidates[-5:])) or "none: no module returns maps"
    raise ValueError(
        f"{type(model).__name__} has no convolutional map of more than one place for a picture of "
        f"{height} x {width}"
        + (" in a backbone" if logits.ndim == 4 else "")
        + f": give layer, the name of a module that returns maps [B, C, h, w]; candidates: {near}"
    )


def run(model: nn.Module, x: Tensor) -> Tensor:
    """Return a network's logits in evaluation mode, without derivatives unless a hook wants them.

    Hooks run in compiled networks too.

    Args:
        model: any network; its mode and statistics are the same afterwards.
        x: pictures as the network wants them, [B, C, H, W].

    Returns:
        Logits [B, K] or [B, K, H, W].

    Raises:
        ValueError: the network returns something else, or ``x`` is no batch of pictures.
    """
    _check_pictures(x)
    with (
        keeping_state(model, training=False),
        torch.compiler.set_stance("force_eager"),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        # A copy, as the network may change it in place; and what was made in inference mode
        # cannot be derived.
        logits = model(x.clone())
    if isinstance(logits, Tensor) and logits.ndim in (2, 4) and logits.shape[1] > 0:
        return logits
    what = f"a tensor {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    if isinstance(logits, dict):
        what = f"a dict of {', '.join(map(str, logits))}"
    raise ValueError(
        f"{type(model).__name__} returns {what}: explanations are for logits [B, K] or "
        "[B, K, H, W]; put the network into a module that returns those"
    )


def _check_no_inference_tensors(model: nn.Module) -> None:
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(
            f"{type(model).__name__} was made in torch.inference_mode and has no derivatives: "
            "build or load it outside, or use cam or scorecam"
        )


def _channels_last(model: nn.Module, module: nn.Module, output: Tensor) -> bool:
    """Tell whether a module's output, if it has four dimensions, is [B, H, W, C]."""
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
        return False
    if isinstance(module, nn.Linear):
        return True
    if str(getattr(model, "output_fmt", "")).upper().endswith("NHWC"):  # of timm
        return True
    # A LayerNorm, and what is built of such, has channels at the end.
    norms = {m.normalized_shape[-1] for m in module.modules() if isinstance(m, nn.LayerNorm)}
    return bool(norms) and output.shape[1] not in norms and output.shape[-1] in norms


def _check_pictures(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
        what = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"pictures must be floating-point numbers [B, C, H, W], not {what}")


def _check_output(
    model: nn.Module, layer: str, output: Any, grid: tuple[int, int] | None, pictures: int
) -> None:
    problem = ""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        problem = f"returns {type(output).__name__}"
    elif output.ndim not in (3, 4) or len(output) != pictures:
        problem = f"returns a tensor {list(output.shape)}"
    elif output.ndim == 3 and not (grid and output.shape[1] >= prod(grid)):
        problem = f"returns {output.shape[1]} tokens, which are not those of the patches"
    if problem:
        raise ValueError(
            f"layer {layer!r} of {type(model).__name__} {problem}: name one that returns a map "
            "[B, C, h, w] or tokens [B, N, C] of patches, or leave layer out"
        )


@dataclass
class PatchGrid:
    """A forward hook for all modules, which finds out of what map tokens [B, N, C] were made.

    It is the map of the last convolution before the first tokens; tokens of its places are the last
    h w of all. So pictures of any size and all kinds of patch embeddings are known.

    Attributes:
        grid: (h, w) of that map, if there is one.
        tokens: whether tokens have been seen.
    """

    grid: tuple[int, int] | None = None
    tokens: bool = False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Look at a module's output."""
        if not isinstance(output, Tensor) or self.tokens:
            return
        if output.ndim == 4 and isinstance(module, nn.Conv2d):
            self.grid = (output.shape[2], output.shape[3])
        elif output.ndim == 3 and self.grid and output.shape[1] >= prod(self.grid):
            self.tokens = True


@dataclass
class _Trace:
    """Which modules return maps of a picture, in the order in which they end."""

    model: nn.Module
    maps: list[str] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)
    first_norm: str = ""  # of the last block, if nothing after it is a map
    _given_tokens: set[str] = field(default_factory=set)
    _tokens: set[tuple[int, int]] = field(default_factory=set)
    _grids: PatchGrid = field(default_factory=PatchGrid)
    _pooled: Any = None
    _calls: int = 0
    _calls_to_map: int = 0
    _tokens_after_map: int = 0

    @property
    def goes_on_without_maps(self) -> bool:
        """Whether more modules return tokens after the last map than run before it."""
        return self._tokens_after_map > self._calls_to_map

    def pre_hook(self, name: str) -> Any:
        """Return what notes whether a module is given tokens."""

        def note(module: nn.Module, args: Any) -> None:
            if args and isinstance(args[0], Tensor) and args[0].ndim == 3:
                self._given_tokens.add(name)

        return note

    def hook(self, name: str) -> Any:
        """Return what notes the output of a module."""

        def note(module: nn.Module, args: Any, output: Any) -> None:
            self._calls += 1
            self._grids(module, args, output)
            if isinstance(output, Tensor) and output.ndim == 3:
                self._note_tokens(name, output)
            elif isinstance(output, Tensor) and output.ndim == 4:
                self._note_map(name, module, output)

        return note

    def _note_tokens(self, name: str, output: Tensor) -> None:
        self._tokens.add((output.shape[1], output.shape[2]))
        self._tokens_after_map += 1
        of_patches = self._grids.tokens and output.shape[1] >= prod(self._grids.grid or (0, 0))
        if of_patches:
            self.candidates.append(name)
        if name.rpartition(".")[2] in _FIRST_NORMS:
            self.first_norm = name if of_patches else ""

    def _note_map(self, name: str, module: nn.Module, output: Tensor) -> None:
        pictures, channels, height, width = output.shape
        # What attention has inside, such as one matrix for each head, is no map of the picture;
        # nor are windows of it. Of what is given tokens, only convolutions make maps of them.
        inside = any(name.startswith(f"{one}.") for one in self._given_tokens)
        if pictures > 1 or ".attn." in name or (inside and not isinstance(module, nn.Conv2d)):
            return
        for number, size in self._tokens:
            if inside and width == number > 1 and height in (1, number):
                return
            if height == number > 1 and channels * width == size:
                return
        self.candidates.append(name)
        if isinstance(module, _POOLING):
            self._pooled = output
            return
        last = _channels_last(self.model, module, output)
        if output is not self._pooled and (channels * height if last else height * width) > 1:
            self.maps.append(name)
            self.first_norm = ""
            self._calls_to_map, self._tokens_after_map = self._calls, 0
