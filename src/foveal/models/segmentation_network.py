"""What every network for semantic segmentation is: a backbone, a head, logits for each pixel."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from foveal.models.options import check_whole

NUM_CLASSES = 21  # of Pascal VOC, where nothing is asked for
_SIDE = 480  # of pictures, where the backbone takes any


class SegmentationNetwork(nn.Module):
    """A backbone and a head that turns its maps into logits, enlarged to the picture's size.

    Parameters of the backbone are under ``backbone``; everything else is a head.

    Args:
        backbone: returns a list of maps from fine to coarse, described by ``feature_info``.
        head: the last map to logits; see :meth:`decode`.
        auxiliary_head: a second head on the map before the last, for training; or None.
        classifier: names of the convolutions that have an output for each class.
        num_classes: K.
        in_chans: channels of the picture.
        align_corners: how logits are enlarged, as in :func:`torch.nn.functional.interpolate`.

    Shape:
        input [B, C, H, W], any H, W >= 1; output [B, K, H, W], logits; in training, with an
        auxiliary head, a pair of such. In training, one picture so small that its last map is a
        single pixel has no variance for the BatchNorms, and torch raises ValueError: "Expected more
        than 1 value per channel".
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        auxiliary_head: nn.Module | None = None,
        classifier: Sequence[str],
        num_classes: int,
        in_chans: int = 3,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.auxiliary_head = auxiliary_head
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.align_corners = align_corners
        described: dict[str, Any] = dict(getattr(backbone, "default_cfg", None) or {})
        if not described.get("fixed_input_size"):
            described["input_size"] = (in_chans, _SIDE, _SIDE)
        described |= {"num_classes": num_classes, "classifier": tuple(classifier)}
        self.pretrained_cfg = self.default_cfg = described

    def forward(
        self, x: torch.Tensor, *, auxiliary: bool | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return logits for each pixel.

        Args:
            x: pictures, [B, C, H, W].
            auxiliary: return the auxiliary head's logits too; None does so in training only. Where
                it is not asked for, that head is not run.

        Returns:
            Logits [B, K, H, W], or those and the auxiliary ones of the same shape.

        Raises:
            ValueError: auxiliary logits of a network without such a head.
        """
        if auxiliary is None:
            auxiliary = self.training and self.auxiliary_head is not None
        maps: list[torch.Tensor] = self.backbone(x)
        logits = self._enlarged(self.decode(maps), x)
        if not auxiliary:
            return logits
        if self.auxiliary_head is None:
            raise ValueError("the network has no auxiliary head: leave auxiliary out")
        return logits, self._enlarged(self.auxiliary_head(maps[-2]), x)

    def decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the head's logits at the size of a map."""
        logits: torch.Tensor = self.head(maps[-1])
        return logits

    def reset_classifier(self, num_classes: int) -> None:
        """Give the network new, random classifiers for ``num_classes`` classes.

        Raises:
            TypeError: no whole number.
            ValueError: less than 1.
        """
        check_num_classes(num_classes)
        for name in self.default_cfg["classifier"]:
            parent, _, child = name.rpartition(".")
            old: Any = self.get_submodule(name)
            new = nn.Conv2d(
                old.in_channels,
                num_classes,
                old.kernel_size,
                bias=old.bias is not None,
                device=old.weight.device,
                dtype=old.weight.dtype,
            )
            setattr(self.get_submodule(parent), child, new)
        self.num_classes = self.default_cfg["num_classes"] = num_classes

    def _enlarged(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-2:]
        return F.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)


def check_num_classes(num_classes: int | None) -> int:
    """Return the number of classes, Pascal VOC's for None.

    Raises:
        TypeError: no whole number.
        ValueError: less than 1.
    """
    if num_classes is None:
        return NUM_CLASSES
    check_whole("num_classes", num_classes)
    if num_classes < 1:
        raise ValueError(f"num_classes of a segmentation network must be at least 1: {num_classes}")
    return num_classes


def fcn_head(in_channels: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Return a 3x3 convolution, BatchNorm, ReLU, dropout of whole maps, and a 1x1 classifier."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            bn=nn.BatchNorm2d(hidden),
            act=nn.ReLU(inplace=True),
            drop=nn.Dropout2d(0.1),
            classifier=nn.Conv2d(hidden, num_classes, 1),
        )
    )
