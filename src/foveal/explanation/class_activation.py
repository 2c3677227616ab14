"""Class activation maps, the only ones in the library: sums of a layer's maps, weighed for a class.

The methods differ in the weights alone:

=============  ====================================================================================
``cam``        of the linear classifier on the average of the maps; where the classifier comes
               before the pooling, the class's own map alone. Zhou et al. 2016
``gradcam``    mean over places of the derivatives of the class's score. Selvaraju et al. 2017
``gradcam++``  sum over places of their positive part times alpha, see :func:`plus_plus_weights`.
               Chattopadhay et al. 2018
``scorecam``   how much the score gains where the picture is left to see through a map alone,
               softmax over the maps. Wang et al. 2020
=============  ====================================================================================
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from foveal.explanation.looking import Look, find_layer, look, plain, run
from foveal.explanation.scores import (
    Region,
    Targets,
    check_region,
    resolve_targets,
    target_scores,
)
from foveal.names import unknown

Normalize = Literal["max", "minmax"] | None
_NORMALIZE = ("max", "minmax")
_CLASSES = 64  # whose maps are enlarged at once


# The map


def class_activation(
    features: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    relu: bool = True,
    normalize: Normalize = "max",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return weighted sums of maps: rectified, enlarged, normalised, in this order.

    Args:
        features: [B, C, h, w].
        weight: of each class, [T, C], or of each picture and class, [B, T, C].
        bias: [T], added to the sums; None: none.
        relu: keep only what speaks for the class.
        normalize: see :func:`normalized`; None: not at all.
        size: (H, W) to enlarge to, bilinearly with half-pixel centres; None: as they are.

    Returns:
        [B, T, h, w] or [B, T, H, W]; float32, or float64 if the features are.

    Example:
        >>> features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
        >>> class_activation(features, torch.tensor([[1.0, 1.0], [0.5, -1.0]]))[0, :, 0]
        tensor([[1.0000, 0.5000],
                [0.0000, 1.0000]])
    """
    features, weight = _wide(features), _wide(weight)
    classes = "btc" if weight.ndim == 3 else "tc"
    with torch.autocast(features.device.type, enabled=False):
        maps = torch.einsum(f"{classes},bchw->bthw", weight, features)
    if bias is not None:
        maps = maps + bias[:, None, None]
    if relu:
        maps = maps.relu()
    if size is not None:
        maps = enlarged(maps, size)
    return normalized(maps, normalize)


def normalized(maps: Tensor, normalize: Normalize = "minmax") -> Tensor:
    """Return maps brought to a common range, each for itself.

    Args:
        maps: [..., h, w].
        normalize: ``max`` divides by the largest value, and a map without positive ones stays as
            it is; ``minmax`` makes the smallest value 0 and the largest 1, and a constant map 0
            everywhere; None leaves them.

    Raises:
        ValueError: another normalisation.
    """
    if normalize is None:
        return maps
    if normalize not in _NORMALIZE:
        raise ValueError(unknown("normalisation", normalize, _NORMALIZE))
    if maps.numel() == 0:
        return maps
    high = maps.amax((-2, -1), keepdim=True)
    if normalize == "max":
        return maps / torch.where(high > 0, high, 1)
    low = maps.amin((-2, -1), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps [B, T, h, w] at another size, bilinearly with half-pixel centres."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    if maps.numel() == 0:
        return maps.new_zeros((*maps.shape[:2], *size))
    return interpolate(maps, size, mode="bilinear", align_corners=False)


# The weights


def plus_plus_weights(features: Tensor, gradients: Tensor) -> Tensor:
    """Return Grad-CAM++'s weights of maps.

    With A the map, g the derivatives of the score S, and Y = exp(S), the paper's equation 19 is

        alpha = g^2 / (2 g^2 + sum(A) g^3) = 1 / (2 + sum(A) g)    where g is not 0, else 0,

    and the weight is sum(alpha relu(g)). Y only adds the factor exp(S), the same for all maps,
    which is left out. The second form does not lose small derivatives. For maps that have negative
    values, which the paper does not have, the denominator may be 0; alpha is 0 there.

    Args:
        features: A, [B, C, h, w].
        gradients: g, the same shape.

    Returns:
        [B, C].
    """
    denominator = 2 + features.sum((2, 3), keepdim=True) * gradients
    alpha = torch.where(denominator == 0, 0, 1 / denominator)
    return (alpha * gradients.relu()).sum((2, 3))


@dataclass(frozen=True)
class _View:
    """A look at pictures of one scale, and what is asked of it."""

    model: nn.Module
    layer: str
    x: Tensor
    found: Look
    targets: Tensor
    region: Region
    cells: int  # of the layer's map at scale 1
    max_channels: int | None
    chunk_size: int

    @property
    def features(self) -> Tensor:
        return _wide(self.found.as_map(self.found.output.detach()))

    def gradients(self) -> Iterator[Tensor]:
        """Yield the derivatives of each target's score, [B, C, h, w].

        One target at a time: as fast as many at once, as little comes after the layer, and within
        one target's memory.
        """
        logits, count = self.found.logits, self.targets.shape[1]
        for k in range(count):
            with torch.enable_grad():
                sums, numbers = target_scores(logits, self.targets[:, k], self.region)
                total = sums.sum()
            gradient = None
            if total.requires_grad:
                (gradient,) = torch.autograd.grad(
                    total, self.found.output, retain_graph=k + 1 < count, allow_unused=True
                )
            if gradient is None:
                raise ValueError(
                    f"the logits of {type(self.model).__name__} have no derivative by layer "
                    f"{self.layer!r}: name another, or use scorecam"
                )
            yield _wide(self.found.as_map(gradient)) / numbers[:, None, None, None]


def linear_classifier(model: nn.Module, layer: str, found: Look) -> tuple[Tensor, Tensor]:
    """Return weights [K, C] and bias [K] of the linear classifier on the average of a map.

    That the logits are W mean(A) + b is held to the logits themselves, so that no kind of network
    has to be known.

    Args:
        model: a network.
        layer: name of the layer whose output A is.
        found: what the network made of pictures, see :func:`foveal.explanation.looking.look`.

    Raises:
        ValueError: the logits are none of such a classifier.
    """
    features = _wide(found.as_map(found.output.detach()))
    logits, linear = found.logits, found.last_linear
    shape = (logits.shape[1], features.shape[1])
    weight: Any = getattr(linear, "weight", None)
    if logits.ndim == 2 and weight is not None and weight.flatten(1).shape == shape:
        weight = _wide(weight.detach().flatten(1))
        bias: Any = getattr(linear, "bias", None)
        bias = weight.new_zeros(len(weight)) if bias is None else _wide(bias.detach())
        means = features.mean((2, 3)).to(weight.dtype)
        with torch.autocast(features.device.type, enabled=False):
            expected = means @ weight.T + bias
            scale = (means.abs() @ weight.abs().T + bias.abs()).amax(1, keepdim=True)
        coarsest = max(torch.finfo(t.dtype).eps for t in (logits, found.output))
        error = (logits - expected).abs()
        if not (error > max(1e-3, 8 * coarsest) * scale).any():
            return weight, bias
    raise ValueError(
        f"cam needs a linear classifier on the average of a map, and the logits of "
        f"{type(model).__name__} are none on that of {layer!r}: use gradcam"
    )


def _cam(view: _View) -> Tensor:
    """Return the classifier's weights of the targets, [B, T, C].

    Where the classifier comes before the pooling, the layer's maps are the classes' own, whatever
    the pooling: the weights choose among them.
    """
    if _are_classes(view):
        classes = torch.eye(view.features.shape[1], device=view.features.device)
        return classes[view.targets].to(view.features)
    weight, _ = linear_classifier(view.model, view.layer, view.found)
    return weight[view.targets]


def _are_classes(view: _View) -> bool:
    """Tell whether the layer is a classifier without bias, and each logit one value of its map."""
    logits, features, last = view.found.logits, view.features, view.found.last_linear
    if last is not view.model.get_submodule(view.layer) or getattr(last, "bias", None) is not None:
        return False
    if logits.ndim != 2 or logits.shape[1] != features.shape[1] or features.numel() == 0:
        return False
    low, high = features.amin((2, 3)), features.amax((2, 3))
    coarsest = max(torch.finfo(t.dtype).eps for t in (logits, view.found.output))
    slack = max(1e-3, 8 * coarsest) * features.abs().amax((2, 3))
    return bool(((logits >= low - slack) & (logits <= high + slack)).all())


def _gradcam(view: _View) -> Tensor:
    # The mean at scale 1. At others the sum counts, which does not depend on the number of cells.
    return _stacked(view, (gradient.sum((2, 3)) / view.cells for gradient in view.gradients()))


def _gradcam_plus_plus(view: _View) -> Tensor:
    features = view.features
    return _stacked(view, (plus_plus_weights(features, g) for g in view.gradients()))


def _scorecam(view: _View) -> Tensor:
    """Return the softmax, over maps, of the score of the picture seen through each, [B, T, C].

    The paper subtracts the score of a black picture, which the softmax does not see.
    """
    x, features = view.x, view.features
    pictures, channels = features.shape[:2]
    scores = features.new_full((pictures, view.targets.shape[1], channels), -torch.inf)
    for b in range(pictures):
        spread = features[b].flatten(1).amax(1) - features[b].flatten(1).amin(1)
        # The first of equals, so that it does not depend on the machine.
        chosen = spread.sort(descending=True, stable=True).indices[: view.max_channels]
        for part in torch.split(chosen.sort().values, view.chunk_size):
            masks = enlarged(features[b, part, None], (x.shape[2], x.shape[3]))
            seen = x[b] * normalized(masks, "minmax").to(x.dtype)
            logits = run(view.model, seen)
            region = view.region
            if isinstance(region, Tensor):
                region = region[b, None].expand(len(part), -1, -1)
            for k, target in enumerate(view.targets[b]):
                sums, numbers = target_scores(logits, target.expand(len(part)), region)
                scores[b, k, part] = (sums / numbers).to(scores.dtype)
    return scores.softmax(2)


def _stacked(view: _View, weights: Iterator[Tensor]) -> Tensor:
    features = view.features
    stacked = features.new_empty((len(features), view.targets.shape[1], features.shape[1]))
    for k, weight in enumerate(weights):
        stacked[:, k] = weight
    return stacked


_WEIGHTS: dict[str, Callable[[_View], Tensor]] = {
    "cam": _cam,
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus_plus,
    "scorecam": _scorecam,
}
ACTIVATION_METHODS = tuple(_WEIGHTS)
_NEED_GRADIENTS = ("gradcam", "gradcam++")


# Of networks


@dataclass(frozen=True, eq=False)
class ActivationMaps:
    """Class activation maps of a batch.

    Attributes:
        maps: of each picture and target, [B, T, h, w], float32 (float64 of such networks).
        targets: the classes, int64 [B, T].
        scores: their logits, in segmentation the means over the region, [B, T].
        logits: the network's, [B, K] or [B, K, H, W].
        layer: whose maps are weighed.
    """

    maps: Tensor
    targets: Tensor
    scores: Tensor
    logits: Tensor
    layer: str


@torch.inference_mode(False)
@torch.no_grad()
def activation_maps(
    model: nn.Module,
    x: Tensor,
    targets: Targets = None,
    method: str = "gradcam",
    *,
    layer: str | None = None,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    relu: bool = True,
    normalize: Normalize = None,
    size: tuple[int, int] | None = None,
    region: Region = "all",
    max_channels: int | None = None,
    chunk_size: int = 32,
) -> ActivationMaps:
    """Return class activation maps of pictures, from one forward pass for all classes.

    The network is run in evaluation mode and is afterwards as it was: modes, statistics, hooks,
    gradients. A picture's maps do not depend on the others of its batch.

    Args:
        model: any network with logits [B, K] or, for segmentation, [B, K, H, W]: convolutional, or
            a transformer of patches. Compiled ones run eagerly.
        x: pictures as the network wants them, [B, C, H, W].
        targets: one class for all, [B], or [B, T]; ``"all"``; None: the predicted class. See
            :func:`foveal.explanation.scores.resolve_targets`.
        method: one of :data:`ACTIVATION_METHODS`.
        layer: name of the module whose output is weighed, a map [B, C, h, w] or tokens [B, N, C] of
            patches; None: that of :func:`find_layer`, for which the first picture runs once more.
        scales: at which pictures are looked at (bilinear, without antialiasing); maps are averaged
            after enlarging.
        mirror: look at the mirror image too, and average.
        relu: keep only what speaks for the class, before anything is averaged.
        normalize: of the result: ``max``, ``minmax`` or None, see :func:`normalized`.
        size: (H, W) of the result; None: the layer's grid (h, w), with other scales than 1 the
            picture's size.
        region: in segmentation, pixels whose logits are averaged: ``"all"``, those ``"predicted"``
            as the class, or a mask [B, H, W].
        max_channels: of scorecam, how many maps take part, those of the widest range; None: all.
        chunk_size: of scorecam, pictures in one forward pass.

    Returns:
        Maps, targets, scores and logits.

    Raises:
        ValueError: an unknown method or layer, no layer found, a class that the network does not
            have, ``cam`` without a linear classifier, an impossible option.

    Example:
        >>> trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        >>> network = nn.Sequential(trunk, nn.Flatten(), nn.Linear(4, 5))
        >>> found = activation_maps(network, torch.rand(2, 3, 10, 12), [[0, 3], [1, 4]])
        >>> found.layer, found.maps.shape
        ('0.1', torch.Size([2, 2, 8, 10]))
    """
    if method not in _WEIGHTS:
        raise ValueError(unknown("method", method, ACTIVATION_METHODS))
    _check_options(scales, normalize, max_channels, chunk_size)
    model = plain(model)
    layer = find_layer(model, x) if layer is None else layer
    gradients = method in _NEED_GRADIENTS
    whole = look(model, x, layer, gradients=gradients)
    logits = whole.logits.detach()
    check_region(logits, region)
    chosen = resolve_targets(logits, targets)
    height, width = whole.as_map(whole.output).shape[2:]
    picture = (x.shape[2], x.shape[3])
    if size is None:
        size = (height, width) if set(scales) == {1} else picture
    views = [(scale, mirrored) for scale in scales for mirrored in (False, True)[: 1 + mirror]]
    total = torch.zeros(())
    for i, (scale, mirrored) in enumerate(views):
        seen, area = view_at(x, scale, mirrored=mirrored), region
        if isinstance(region, Tensor) and mirrored:
            area = region.flip(-1)
        same = scale == 1 and not mirrored
        found = whole if same else look(model, seen, layer, gradients=gradients)
        view = _View(
            model, layer, seen, found, chosen, area, height * width, max_channels, chunk_size
        )
        maps = class_activation(view.features, _WEIGHTS[method](view), relu=relu, normalize=None)
        maps = maps.flip(-1) if mirrored else maps
        if i == 0:
            total = maps.new_zeros((*maps.shape[:2], *size))
        for first in range(0, maps.shape[1], _CLASSES):
            part = slice(first, first + _CLASSES)
            total[:, part] += enlarged(maps[:, part], size)
    return ActivationMaps(
        normalized(total.div_(len(views)), normalize),
        chosen,
        _scores(logits, chosen, region),
        logits,
        layer,
    )


def view_at(x: Tensor, scale: float, *, mirrored: bool = False) -> Tensor:
    """Return pictures [B, C, H, W] at another scale, bilinearly, or their mirror images."""
    if scale != 1:
        sides = [max(1, round(scale * side)) for side in x.shape[2:]]
        x = interpolate(x, sides, mode="bilinear", align_corners=False)
    return x.flip(-1) if mirrored else x


def _scores(logits: Tensor, targets: Tensor, region: Region) -> Tensor:
    scores = logits.new_empty(targets.shape, dtype=torch.promote_types(logits.dtype, torch.float32))
    for k in range(targets.shape[1]):
        sums, numbers = target_scores(logits, targets[:, k], region)
        scores[:, k] = sums / numbers
    return scores


def _check_options(
    scales: Sequence[float], normalize: Any, max_channels: int | None, chunk_size: int
) -> None:
    if isinstance(scales, int | float) or not len(scales) or not all(0 < s < inf for s in scales):
        raise ValueError(f"scales must be a list of one or more numbers above 0, not {scales}")
    if normalize is not None and normalize not in _NORMALIZE:
        raise ValueError(unknown("normalisation", normalize, _NORMALIZE))
    if chunk_size < 1 or (max_channels is not None and max_channels < 1):
        raise ValueError(
            f"chunk_size and max_channels must be at least 1, not {chunk_size} and {max_channels}"
        )


def _wide(tensor: Tensor) -> Tensor:
    """Return numbers of at least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
