"""DFI: salient objects, edges and skeletons from one network.

The trunk is a ResNet-50 in the layout of Caffe, with timm's keys. The decoder works behind any
other backbone that has maps of several strides.

Source: Liu, Hou, Cheng 2020, arXiv:2004.08595 (IEEE TIP 2020), and the authors' code.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from foveal.config import DENSE_TASKS as TASKS
from foveal.models.caffe_resnet import CAFFE_INPUT, caffe_layout
from foveal.models.dfi_decoder import DFIDecoder, PyramidSum
from foveal.models.segmentation_backbone import segmentation_backbone
from foveal.names import unknown

_SIZE = (300, 400)  # of pictures, where the backbone takes any: that of the published counts
_OFFICIAL_WIDTH, _OFFICIAL_CHANNELS = 32, 2048  # of the finest scale, and of the trunk's last map
_STEP = 16  # of widths: a quarter of it is a group of the narrowest norms


class DFI(nn.Module):
    """A backbone and a decoder that turns its levels into one map of logits for each task.

    Parameters of the backbone are under ``backbone``; everything else is a head.

    Args:
        backbone: returns a list of maps from fine to coarse.
        pyramid: the last map to one more level.
        decoder: the levels to logits of each task.
        deep_supervision: tasks whose side maps are trained too.
        frozen_norm: the backbone's BatchNorms keep their statistics, in training too, and are not
            trained.
        in_chans: channels of the picture.
        input_cfg: what the backbone wants to see, where its own ``default_cfg`` does not say:
            ``channel_order``, ``mean`` and ``std``.

    Shape:
        input [B, C, H, W], any H, W >= 1; output: a dict task -> logits [B, 1, H, W], in training
        a dict task -> tuple of such, see :meth:`forward`.

    Raises:
        ValueError: ``frozen_norm`` of a backbone without BatchNorm; an unknown task.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pyramid: PyramidSum,
        decoder: DFIDecoder,
        *,
        deep_supervision: Sequence[str] = ("edge", "skeleton"),
        frozen_norm: bool = False,
        in_chans: int = 3,
        input_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.decoder = decoder
        self.tasks = _checked(tuple(decoder.predictors), TASKS, "tasks")
        self.deep_supervision = _checked(deep_supervision, TASKS, "deep_supervision")
        self.frozen_norm = frozen_norm
        self.in_chans = in_chans
        described: dict[str, Any] = dict(getattr(backbone, "default_cfg", None) or {})
        if not described.get("fixed_input_size"):
            described["input_size"] = (in_chans, *_SIZE)
        described |= {"architecture": "dfi", "classifier": (), **(input_cfg or {})}
        self.pretrained_cfg = self.default_cfg = described
        if frozen_norm:
            if not self._norms():
                raise ValueError("frozen_norm is for a backbone with BatchNorm: leave it out")
            for norm in self._norms():
                norm.requires_grad_(False)
            self.train(self.training)

    def forward(
        self, x: torch.Tensor, tasks: Sequence[str] | None = None, *, sides: bool | None = None
    ) -> dict[str, torch.Tensor] | dict[str, tuple[torch.Tensor, ...]]:
        """Return logits of each task, from one pass of the backbone.

        Args:
            x: pictures, [B, C, H, W].
            tasks: which, in any order; None: all that the network has.
            sides: return for each task a tuple of all logits that a loss is asked of: the fused
                ones first, then, for tasks with deep supervision, those of each scale from fine to
                coarse. None does so in training only.

        Returns:
            A dict task -> logits [B, 1, H, W]; with ``sides``, task -> tuple of such, of length 1
            for tasks without deep supervision.

        Raises:
            ValueError: a task that the network does not have, or none.
        """
        wanted = self.tasks if tasks is None else _checked(tasks, self.tasks, "tasks")
        if not wanted:
            raise ValueError(f"tasks must be at least one of {', '.join(self.tasks)}")
        outputs: dict[str, tuple[torch.Tensor, ...]]
        outputs = self.decoder(self.levels(x), x.shape[-2:], wanted)
        if self.training if sides is None else sides:
            return {
                task: logits if task in self.deep_supervision else logits[:1]
                for task, logits in outputs.items()
            }
        return {task: logits[0] for task, logits in outputs.items()}

    def levels(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps that tasks choose from: the backbone's, fine to coarse, and one more.

        Args:
            x: pictures, [B, C, H, W].
        """
        maps: list[torch.Tensor] = self.backbone(x)
        return [*maps, self.pyramid(maps[-1])]

    def gates(self, x: torch.Tensor, tasks: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Return how much each task weighs each level, before it selects the largest.

        Args:
            x: pictures, [B, C, H, W].
            tasks: which; None: all that the network has.

        Returns:
            A dict task -> weights [B, scales, levels], which sum to 1 over the levels;
            :func:`foveal.layers.selective_integration.largest` tells which are selected.

        Raises:
            ValueError: a task that the network does not have, or a network without selection.
        """
        wanted = self.tasks if tasks is None else _checked(tasks, self.tasks, "tasks")
        return self.decoder.gates(self.levels(x), wanted)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but for the backbone's BatchNorms where they are frozen."""
        super().train(mode)
        for norm in self._norms() if self.frozen_norm else ():
            norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.backbone.modules() if isinstance(module, _BatchNorm)]


def dfi(
    *,
    backbone: str | None = None,
    tasks: Sequence[str] = TASKS,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    output_stride: int = 16,
    selected: int | None = 3,
    deep_supervision: Sequence[str] = ("edge", "skeleton"),
    width: int | None = None,
    frozen_norm: bool = False,
    backbone_args: Mapping[str, Any] | None = None,
    backbone_checkpoint: str | Path = "",
) -> DFI:
    """Build DFI.

    Args:
        backbone: any classification network whose maps have several strides; None is the official
            trunk, a ResNet-50 in the layout of Caffe, which wants BGR pictures in 0..255 minus the
            mean (``default_cfg`` says so, and preprocessing follows it).
        tasks: at least one of ``saliency``, ``edge`` and ``skeleton``.
        pretrained: load the backbone's published weights; the official trunk has none here.
        num_classes: for every network's sake; there are none.
        in_chans: channels of the picture.
        output_stride: of the backbone's last map, 16 as in the official network, 8 or 32.
        selected: how many levels a task selects on each scale; None: all, unweighted.
        deep_supervision: tasks whose side maps are returned in training.
        width: channels of the finest scale, at least 16; each further scale has twice of the
            one before, up to eight times this. None: 32 as in the official network, in proportion
            to the channels of the backbone's last map, in steps of 16.
        frozen_norm: the backbone's BatchNorms are not trained and keep their statistics, as in the
            official network; of use with trained weights only.
        backbone_args: further arguments of the backbone, such as ``{"layers": (2, 2, 2, 2)}``.
        backbone_checkpoint: weights of the backbone as a classification network, to load instead
            of published ones.

    Raises:
        ValueError: an unknown name, an impossible value, a backbone that cannot have the stride or
            whose maps all have the same.
        TypeError: an argument that the backbone does not have.
    """
    if num_classes is not None:
        raise ValueError("dfi has no classes but tasks: give tasks, and leave num_classes out")
    chosen = _checked(tasks, TASKS, "tasks")
    if not chosen:
        raise ValueError(f"tasks must be at least one of {', '.join(TASKS)}")
    if width is not None and width < _STEP:
        raise ValueError(f"width must be at least {_STEP}, not {width!r}")
    if backbone is None and pretrained:
        raise ValueError(
            "there are no published weights for dfi's own trunk: give backbone_checkpoint, or a "
            "backbone that has some, such as resnet50"
        )
    if backbone is None and (backbone_args is None or isinstance(backbone_args, Mapping)):
        backbone_args = {"zero_init_last": False, **(backbone_args or {})}
    trunk: Any = segmentation_backbone(
        backbone or "resnet50",
        lambda strides: range(len(strides)),
        output_stride,
        in_chans,
        pretrained,
        backbone_args,
        backbone_checkpoint,
    )
    strides = list(dict.fromkeys(trunk.feature_info.reduction()))
    if len(strides) < 2:
        raise ValueError(
            f"dfi needs maps of several strides, and all of the backbone {backbone!r} have "
            f"{strides[0]}: take another, such as a ResNet or MobileNetV2"
        )
    if backbone is None:
        caffe_layout(trunk)
    channels = trunk.feature_info.channels()
    if width is None:
        width = _OFFICIAL_WIDTH * channels[-1] // _OFFICIAL_CHANNELS
        width = max(_STEP, (width + _STEP // 2) // _STEP * _STEP)
    widths = [width * min(2**i, 8) for i in range(len(channels))]
    top = 8 * width
    return DFI(
        trunk,
        PyramidSum(channels[-1], top),
        DFIDecoder([*channels, top], [*widths, top], widths[:-1], chosen, selected=selected),
        deep_supervision=deep_supervision,
        frozen_norm=frozen_norm,
        in_chans=in_chans,
        input_cfg=CAFFE_INPUT if backbone is None else None,
    )


def _checked(tasks: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the tasks in the order in which they are known.

    Raises:
        ValueError: one that is not known, or text in place of a list.
    """
    if isinstance(tasks, str):
        raise ValueError(f"{what} must be a list of names such as ['edge'], not {tasks!r}")
    for task in tasks:
        if task not in known:
            raise ValueError(unknown("task", task, known))
    return tuple(task for task in known if task in tasks)
