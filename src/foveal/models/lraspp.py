"""LR-ASPP: a gate of global means on the coarsest map, and a finer map beside it, on any backbone.

The head is torchvision's.

Source: Howard et al. 2019, arXiv:1905.02244, section 6.4.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision.models.segmentation.lraspp import LRASPPHead

from foveal.models.options import check_whole
from foveal.models.segmentation_backbone import segmentation_backbone
from foveal.models.segmentation_network import SegmentationNetwork, check_num_classes


class LRASPP(SegmentationNetwork):
    """A segmentation network whose head sees two levels."""

    def decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the head's logits at the size of the finer map."""
        logits: torch.Tensor = self.head({"low": maps[0], "high": maps[1]})
        return logits


def lraspp(
    *,
    backbone: str = "mobilenetv2_100_coordinate",
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    output_stride: int = 16,
    hidden: int = 128,
    backbone_args: Mapping[str, Any] | None = None,
    backbone_checkpoint: str | Path = "",
) -> LRASPP:
    """Build LR-ASPP.

    Args:
        backbone: any classification network.
        pretrained: load the backbone's published weights.
        num_classes: K; None gives 21.
        in_chans: channels of the picture.
        output_stride: of the coarse map, 8, 16 or 32; the finer one has half of it.
        hidden: channels of the head.
        backbone_args: further arguments of the backbone.
        backbone_checkpoint: its weights as a classification network, instead of published ones.

    Raises:
        ValueError: an unknown name, an impossible value, a backbone that cannot have the strides.
        TypeError: an argument of a wrong type, or one that the backbone does not have or the model
            decides.
    """
    classes = check_num_classes(num_classes)
    check_whole("hidden", hidden)
    if hidden < 1:
        raise ValueError(f"hidden must be at least 1, not {hidden}")

    def levels(strides: Sequence[int]) -> tuple[int, ...]:
        finer = [i for i, stride in enumerate(strides) if 2 * stride == output_stride]
        if not finer:
            raise ValueError(
                f"the backbone {backbone!r} has no map of stride {output_stride // 2} beside that "
                f"of {output_stride}: its maps have strides {', '.join(map(str, strides))}"
            )
        return (finer[-1], len(strides) - 1)

    trunk: Any = segmentation_backbone(
        backbone, levels, output_stride, in_chans, pretrained, backbone_args, backbone_checkpoint
    )
    low, high = trunk.feature_info.channels()
    return LRASPP(
        trunk,
        LRASPPHead(low, high, classes, hidden),
        classifier=["head.low_classifier", "head.high_classifier"],
        num_classes=classes,
        in_chans=in_chans,
    )
