"""A classifier with a narrow linear layer between the pooled features and the classes.

Domain adaptation aligns what that layer gives: a few hundred numbers whatever the backbone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.models.backbones import create_backbone
from foveal.models.checkpoints import find_state_dict, read_checkpoint
from foveal.models.domain_discriminator import xavier_start
from foveal.models.options import check_whole
from foveal.models.segmentation_backbone import check_arguments, load_trunk

_CLASSES = 1000  # of ImageNet, where nothing is asked for
_SIDE = 224  # of pictures, where the backbone takes any
_ARGUMENT = "it is an argument of the model"
# What ``backbone_args`` cannot hold, and why.
_DECIDED = {
    **dict.fromkeys(("pretrained", "num_classes", "in_chans"), _ARGUMENT),
    **dict.fromkeys(
        ("features_only", "out_indices", "feature_cls", "feature_cfg"),
        "the bottleneck stands on the pooled features",
    ),
    "name": "it is the model's backbone",
    "checkpoint_path": "it is the model's backbone_checkpoint",
}


class BottleneckClassifier(nn.Module):
    """A backbone's pooled features, a linear bottleneck, a linear classifier.

    There is nothing between the linear layers, neither norm nor activation nor dropout. Both start
    with Xavier-normal weights and no bias.

    Source: official code of NOUN (Hu et al. 2021, arXiv:2003.13274v4), there on ResNets alone.

    Args:
        backbone: gives pooled features [B, F], such as a timm network with ``num_classes=0``; F is
            its ``head_hidden_size`` or ``num_features``.
        num_classes: K; 0: no classifier, the output is the bottleneck's.
        bottleneck_dim: D, width of the bottleneck.
        in_chans: channels of the picture.

    Attributes:
        num_features: D.

    Shape:
        input [B, C, H, W]; output [B, K], logits.

    Raises:
        ValueError: a number out of range.
        TypeError: a number that is not whole.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        bottleneck_dim: int = 256,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        check_whole("bottleneck_dim", bottleneck_dim)
        if bottleneck_dim < 1:
            raise ValueError(f"bottleneck_dim must be at least 1, not {bottleneck_dim}")
        self.backbone: Any = backbone
        pooled: Any = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.num_features, self.in_chans = bottleneck_dim, in_chans
        self.bottleneck = nn.Linear(pooled, bottleneck_dim, **_factory(backbone))
        xavier_start(self.bottleneck)
        described: dict[str, Any] = dict(getattr(backbone, "default_cfg", None) or {})
        if not described.get("fixed_input_size"):
            described["input_size"] = (in_chans, _SIDE, _SIDE)
        self.pretrained_cfg = self.default_cfg = {**described, "classifier": "classifier"}
        self.reset_classifier(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, K] of pictures [B, C, H, W]."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Return the bottleneck's output [B, D] of pictures [B, C, H, W]: what is aligned."""
        features: Tensor = self.bottleneck(self.backbone(x))
        return features

    def get_classifier(self) -> nn.Module:
        """Return the last layer, or the identity where there are no classes."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Give the network a new classifier; 0: none.

        Raises:
            TypeError: no whole number.
            ValueError: less than 0.
        """
        check_whole("num_classes", num_classes)
        if num_classes < 0:
            raise ValueError(f"num_classes must be 0 or more, not {num_classes}")
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            layer = nn.Linear(self.num_features, num_classes, **_factory(self.bottleneck))
            xavier_start(layer)
            self.classifier = layer
        self.num_classes = self.default_cfg["num_classes"] = num_classes


def _factory(module: nn.Module) -> dict[str, Any]:
    """Return device and type of a module's parameters, of a module without any the defaults."""
    weight = next(module.parameters(), torch.empty(0))
    return {"device": weight.device, "dtype": weight.dtype}


def bottleneck_classifier(
    *,
    backbone: str = "resnet50",
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    bottleneck_dim: int = 256,
    backbone_args: Mapping[str, Any] | None = None,
    backbone_checkpoint: str | Path = "",
) -> BottleneckClassifier:
    """Build a classifier with a bottleneck on any classification backbone.

    Args:
        backbone: any classification network of foveal or timm.
        pretrained: load the backbone's published weights.
        num_classes: K; None gives 1000; 0 leaves the classifier out.
        in_chans: channels of the picture.
        bottleneck_dim: D, width of the bottleneck.
        backbone_args: further arguments of the backbone.
        backbone_checkpoint: its weights as a classification network, instead of published ones;
            all but the classifier must fit.

    Raises:
        ValueError: an unknown name or an impossible value.
        TypeError: an argument of a wrong type, or one that the backbone does not have or the model
            decides.
        OSError: weights are missing.
    """
    kw = {"in_chans": in_chans, **check_arguments(backbone_args, _DECIDED)}
    state = find_state_dict(read_checkpoint(backbone_checkpoint)) if backbone_checkpoint else None
    trunk = create_backbone(backbone, pretrained=pretrained and state is None, num_classes=0, **kw)
    if state is not None:
        load_trunk(trunk, backbone, kw, state, f"the checkpoint {str(backbone_checkpoint)!r}")
    return BottleneckClassifier(
        trunk,
        _CLASSES if num_classes is None else num_classes,
        bottleneck_dim=bottleneck_dim,
        in_chans=in_chans,
    )
