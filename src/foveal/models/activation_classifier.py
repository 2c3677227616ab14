"""A classifier that makes a map for each class and then asks whether anything is in it.

The classifier is a 1x1 convolution without bias on the backbone's last map, so that its maps are
the class activation maps, and a class's logit is a pooled value of its map. With ``mean`` that is
the classifier with global average pooling of Zhou et al. 2016, arXiv:1512.04150. The mean shrinks
with the object; the other two ask for presence, whatever the size: the mean of the largest cells,
and the logarithm of the mean of exponentials of Pinheiro and Collobert 2015, arXiv:1411.6228,
section 3.2.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.models.options import check_whole
from foveal.models.segmentation_backbone import segmentation_backbone
from foveal.names import unknown

POOLINGS = ("mean", "topk", "logsumexp")
_CLASSES = 1000  # of ImageNet, where nothing is asked for
_SIDE = 224  # of pictures, where the backbone takes any


class ActivationClassifier(nn.Module):
    """A backbone, a bias-free 1x1 convolution, and a pooling of its maps.

    Args:
        backbone: returns a list of maps from fine to coarse, described by ``feature_info``; the
            last one is classified.
        num_classes: K; 0: no classifier, the features' own maps are pooled.
        in_chans: channels of the picture.
        pooling: how a map becomes a logit: its ``mean``; ``topk``, the mean of its largest cells;
            or ``logsumexp``, log(mean(exp(sharpness map))) / sharpness.
        top_k: how many cells that mean is over, all of them in smaller maps.
        sharpness: of logsumexp: near 0 it is the mean, and grows into the maximum.

    Shape:
        input [B, C, H, W], any H, W >= 1; output [B, K], logits.

    Raises:
        ValueError: an unknown pooling, or a number that cannot be.
        TypeError: ``top_k`` is no whole number.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        in_chans: int = 3,
        pooling: str = "topk",
        top_k: int = 9,
        sharpness: float = 5.0,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(unknown("pooling", str(pooling), POOLINGS))
        check_whole("top_k", top_k)
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        if not 0 < sharpness < math.inf:
            raise ValueError(f"sharpness must be more than 0 and finite, not {sharpness!r}")
        self.backbone = backbone
        self.num_features: int = backbone.feature_info.channels()[-1]  # type: ignore
        self.in_chans, self.pooling = in_chans, pooling
        self.top_k, self.sharpness = top_k, sharpness
        described: dict[str, Any] = dict(getattr(backbone, "default_cfg", None) or {})
        if not described.get("fixed_input_size"):
            described["input_size"] = (in_chans, _SIDE, _SIDE)
        self.pretrained_cfg = self.default_cfg = {**described, "classifier": "classifier"}
        self.reset_classifier(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, K] of pictures [B, C, H, W]."""
        return self.forward_maps(x)[0]

    def forward_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the maps that they are pooled from.

        Args:
            x: pictures, [B, C, H, W].

        Returns:
            Logits [B, K], and class activations of both signs [B, K, h, w].
        """
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Return the map [B, F, h, w] of pictures [B, C, H, W] that is classified."""
        maps: list[Tensor] = self.backbone(x)
        return maps[-1]

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, K] and maps [B, K, h, w] of :meth:`features`."""
        maps: Tensor = self.classifier(features)
        return self._pooled(maps), maps

    def get_classifier(self) -> nn.Module:
        """Return the convolution, or the identity where there are no classes."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Give the network a new, random classifier; 0: none.

        Raises:
            TypeError: no whole number.
            ValueError: less than 0.
        """
        check_whole("num_classes", num_classes)
        if num_classes < 0:
            raise ValueError(f"num_classes must be 0 or more, not {num_classes}")
        weight = next(self.backbone.parameters())
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            self.classifier = nn.Conv2d(
                self.num_features,
                num_classes,
                1,
                bias=False,
                device=weight.device,
                dtype=weight.dtype,
            )
        self.num_classes = self.default_cfg["num_classes"] = num_classes

    def _pooled(self, maps: Tensor) -> Tensor:
        cells = maps.flatten(2)
        if self.pooling == "mean":
            return cells.mean(2)
        if self.pooling == "topk":
            # Not topk: one exported program serves maps with more and with fewer cells.
            largest = cells.sort(2, descending=True).values
            counts = torch.arange(cells.shape[2], device=cells.device) < self.top_k
            return torch.where(counts, largest, 0).sum(2) / counts.sum()
        top = cells.amax(2, keepdim=True).detach()  # or exp might overflow
        mean = (self.sharpness * (cells - top)).exp().mean(2)
        return mean.log() / self.sharpness + top[:, :, 0]


def activation_classifier(
    *,
    backbone: str = "mobilenetv2_100_coordinate",
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    output_stride: int = 16,
    pooling: str = "topk",
    top_k: int = 9,
    sharpness: float = 5.0,
    backbone_args: Mapping[str, Any] | None = None,
    backbone_checkpoint: str | Path = "",
) -> ActivationClassifier:
    """Build a classifier whose class activation maps are its own.

    Args:
        backbone: any classification network that has maps of features.
        pretrained: load the backbone's published weights.
        num_classes: K; None gives 1000; 0 leaves the classifier out.
        in_chans: channels of the picture.
        output_stride: of the maps, 8, 16 or 32.
        pooling: ``mean``, ``topk`` or ``logsumexp``, as of :class:`ActivationClassifier`.
        top_k: cells of ``topk``.
        sharpness: of ``logsumexp``.
        backbone_args: further arguments of the backbone.
        backbone_checkpoint: its weights as a classification network, instead of published ones.

    Raises:
        ValueError: an unknown name, an impossible value, a backbone that cannot have the stride.
        TypeError: an argument of a wrong type, or one that the backbone does not have or the model
            decides.
    """

    def last(strides: Sequence[int]) -> tuple[int, ...]:
        return (len(strides) - 1,)

    trunk = segmentation_backbone(
        backbone, last, output_stride, in_chans, pretrained, backbone_args, backbone_checkpoint
    )
    return ActivationClassifier(
        trunk,
        _CLASSES if num_classes is None else num_classes,
        in_chans=in_chans,
        pooling=pooling,
        top_k=top_k,
        sharpness=sharpness,
    )
