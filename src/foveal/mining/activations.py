"""Classifiers as the miner wants them: pictures to logits and class activations of all classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveal.explanation import class_activation, find_layer
from foveal.explanation.class_activation import enlarged, linear_classifier, view_at
from foveal.explanation.looking import look, plain
from foveal.models.activation_classifier import ActivationClassifier

_SIZE = (3, 224, 224)  # where a network does not say which pictures it wants


def with_activations(
    model: nn.Module,
    x: Tensor | None = None,
    *,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
) -> nn.Module:
    """Return a trained classifier as a module that returns activations of all classes too.

    It calls pictures [N, C, H, W] -> (logits [N, K], activations [N, K, h, w]). The activations
    have both signs and are without the classifier's bias: with it, they sink below 0 everywhere
    once a part of an object is hidden. With one scale it also has ``features(pictures)`` and
    ``head(features)``, for erasing in features. What :func:`foveal.load` returns fits.

    Args:
        model: an :class:`~foveal.models.activation_classifier.ActivationClassifier`, or any network
            whose logits are a linear classifier on the average of a map, such as timm's and
            torchvision's ResNets and MobileNets; compiled ones run eagerly. It is shared, not
            copied.
        x: pictures by which the network is known, [B, C, H, W]; None: noise of the size that the
            network is made for.
        scales: at which pictures are looked at, bilinearly; the logits are those of the picture as
            it is, the activations are averaged at the size that they have there. Usual are
            0.5, 1, 1.5 and 2, with mirror images.
        mirror: look at mirror images too.

    Raises:
        ValueError: the network has no class activations, or no scales above 0.

    Example:
        >>> from foveal import create_model
        >>> net = create_model("mobilenetv2_050_coordinate", num_classes=4, stem_stride=1).eval()
        >>> logits, maps = with_activations(net)(torch.rand(2, 3, 64, 64))
        >>> logits.shape, maps.shape
        (torch.Size([2, 4]), torch.Size([2, 4, 4, 4]))
    """
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(f"scales must be one or more numbers above 0, not {list(scales)}")
    network = plain(model)
    one: nn.Module
    if isinstance(network, ActivationClassifier):
        one = OwnActivations(network)
    else:
        one = LinearActivations(network, _noise(network) if x is None else x)
    return one if {*scales} == {1} and not mirror else SeveralViews(one, scales, mirror=mirror)


class OwnActivations(nn.Module):
    """A network whose classifier makes maps, as a model of the miner.

    Args:
        network: the classifier.
    """

    def __init__(self, network: ActivationClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, K] and activations [N, K, h, w]."""
        return self.network.forward_maps(images)

    def features(self, images: Tensor) -> Tensor:
        """Return the map [N, C, h, w] that is classified."""
        return self.network.features(images)

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and activations of :meth:`features`."""
        return self.network.head(features)


class LinearActivations(nn.Module):
    """A network with a linear classifier on the average of a map, as a model of the miner.

    Args:
        network: the classifier.
        x: pictures to find that map with, [B, C, H, W].

    Raises:
        ValueError: its logits are none of such a classifier.
    """

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.network = network
        self.layer, self._linear = _map_and_classifier(network, x)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, K] and activations [N, K, h, w]."""
        found = look(self.network, images, self.layer)
        return found.logits, self._activations(found.as_map(found.output))

    def features(self, images: Tensor) -> Tensor:
        """Return the map [N, C, h, w] whose average is classified."""
        found = look(self.network, images, self.layer)
        return found.as_map(found.output)

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and activations of :meth:`features`."""
        maps = self._activations(features)
        bias: Any = self.network.get_submodule(self._linear).bias
        logits = maps.mean((2, 3))
        return logits if bias is None else logits + bias, maps

    def _activations(self, features: Tensor) -> Tensor:
        weight: Any = self.network.get_submodule(self._linear).weight
        return class_activation(features, weight.flatten(1), relu=False, normalize=None)


class SeveralViews(nn.Module):
    """The mean of activations over scales and mirror images.

    They are rectified by the miner, after the mean: rectified ones would have no negative values
    by which a class that is absent is told from one of which little is left.

    Args:
        model: pictures to logits and activations.
        scales: at which they are looked at.
        mirror: whether mirror images are looked at too.
    """

    def __init__(self, model: nn.Module, scales: Sequence[float], *, mirror: bool = False) -> None:
        super().__init__()
        self.model, self.scales, self.mirror = model, tuple(scales), mirror

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, K] and activations [N, K, h, w], both of the size at scale 1."""
        logits, maps = self.model(images)
        size = (maps.shape[2], maps.shape[3])
        views = [
            (s, mirrored) for s in self.scales for mirrored in (False, True)[: 1 + self.mirror]
        ]
        total = torch.zeros_like(maps)
        for scale, mirrored in views:
            seen = maps
            if scale != 1 or mirrored:
                _, seen = self.model(view_at(images, scale, mirrored=mirrored))
            total += enlarged(seen.flip(-1) if mirrored else seen, size)
        return logits, total / len(views)


def _map_and_classifier(network: nn.Module, x: Tensor) -> tuple[str, str]:
    """Return the names of the layer whose map is averaged and of the linear layer after it."""
    try:
        layer = find_layer(network, x)
        found = look(network, x, layer)
        linear_classifier(network, layer, found)
    except ValueError as error:
        raise ValueError(
            f"{type(network).__name__} has no class activation maps to mine from: its logits must "
            "be a linear classifier on the average of its last map, as those of ResNets and "
            "MobileNets are; activation_classifier is such a network on any backbone"
        ) from error
    names = {module: name for name, module in network.named_modules()}
    assert found.last_linear is not None
    return layer, names[found.last_linear]


def _noise(network: nn.Module) -> Tensor:
    """Return one picture such as a network wants it, of noise."""
    size = getattr(network, "default_cfg", {}).get("input_size", _SIZE)
    preprocess: Any = getattr(network, "preprocess", None)  # of a run
    if preprocess is not None:
        size = (size[0], preprocess.image_size, preprocess.image_size)
    weight = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, *size, generator=generator).to(weight)
