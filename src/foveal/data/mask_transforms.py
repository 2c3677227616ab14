"""From a picture and its label map to what the network sees and learns, changed together.

Randomness comes from torch's global generator; ``data/loading.py`` seeds it for each sample.
"""

import foveal.torchvision_check  # noqa: F401  (before torchvision)

# isort: split

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from foveal.config import SegmentAugmentConfig
from foveal.data.masks import IGNORED, LabelMap
from foveal.data.transforms import Preprocess, with_channels

_BLUR_REACH, _BLUR_SIGMA = 2, 1.1  # OpenCV's sigma for 5 x 5: 0.3 ((5 - 1) / 2 - 1) + 0.8


class WholePicture:
    """A picture at its own size, normalised as the network wants it: for evaluation.

    ``image_size`` and ``crop_pct`` of the preprocessing are of no account here.

    Args:
        preprocess: what the network wants to see.

    Shape:
        input: a PIL image and uint8 [H, W]; output: float32 [C, H, W] and int64 [H, W].
    """

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def __call__(self, image: Image.Image, labels: LabelMap) -> tuple[Tensor, Tensor]:
        """Return picture and label map as tensors."""
        x = self.preprocess.normalize(with_channels(image, self.preprocess.channels))
        return x, torch.from_numpy(labels).long()


class MaskTrainTransform:
    """Scale, rotation, blur, mirror and crop of a picture with its label map, then normalisation.

    Pictures are interpolated, labels never: each takes its nearest pixel's (scaling counts from
    the pixels' middles, as pictures do; OpenCV, and so the authors' code, shifts labels by up to
    half a pixel against the picture). A crop that is larger than the picture lies so that it holds
    all of it, at a random place; what is outside has the mean colour and label 255.

    Args:
        preprocess: what the network wants to see; ``image_size`` is the side of the crop.
        augment: which changes, and how strong.

    Shape:
        input: a PIL image and uint8 [H, W]; output: float32 [C, image_size, image_size] and int64
        [image_size, image_size].

    Source: Strip Pooling (CVPR 2020), the order and the blur of the authors' code.
    """

    def __init__(self, preprocess: Preprocess, augment: SegmentAugmentConfig) -> None:
        self.preprocess = preprocess
        mean = preprocess.fill
        fill: dict[type | str, Any] = {tv_tensors.Image: mean, tv_tensors.Mask: IGNORED}
        steps: list[v2.Transform] = []
        if (augment.min_scale, augment.max_scale) != (1, 1):
            mode = InterpolationMode(preprocess.interpolation)
            steps.append(_RandomScale(augment.min_scale, augment.max_scale, mode))
        if augment.rotate:
            steps.append(v2.RandomApply([_RandomRotation(augment.rotate, mean)], p=0.5))
        if augment.blur:
            steps.append(v2.RandomApply([_Blur()], p=augment.blur))
        if augment.hflip:
            steps.append(v2.RandomHorizontalFlip(augment.hflip))
        steps.append(v2.RandomCrop(preprocess.image_size, pad_if_needed=True, fill=fill))
        self.both = v2.Compose(steps)

    def __call__(self, image: Image.Image, labels: LabelMap) -> tuple[Tensor, Tensor]:
        """Return one augmented sample; draws from torch's global generator."""
        picture = v2.functional.to_image(with_channels(image, self.preprocess.channels))
        picture, mask = self.both(picture, tv_tensors.Mask(torch.from_numpy(labels)))
        return self.preprocess.normalize(picture), mask.as_subclass(Tensor).long()


class _RandomScale(v2.Transform):
    """Scale by a factor that is drawn uniformly between two."""

    def __init__(self, low: float, high: float, mode: InterpolationMode) -> None:
        super().__init__()
        self.low, self.high, self.mode = low, high, mode

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        factor = self.low + (self.high - self.low) * float(torch.rand(()))
        return {"size": [max(1, round(factor * side)) for side in (height, width)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        size = params["size"]
        if isinstance(inpt, tv_tensors.Mask):
            # torchvision's "nearest" counts from the pixels' corners, unlike its "bilinear".
            scaled = functional.interpolate(inpt[None, None], size, mode="nearest-exact")[0, 0]
            return tv_tensors.wrap(scaled, like=inpt)
        return v2.functional.resize(inpt, size, interpolation=self.mode, antialias=True)


class _RandomRotation(v2.Transform):
    """Rotate by an angle that is drawn uniformly between minus and plus the largest.

    Pillow does it: torchvision's rotation of tensors takes ten times as long.
    """

    def __init__(self, degrees: float, mean: list[int]) -> None:
        super().__init__()
        self.degrees, self.mean = degrees, tuple(mean)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"angle": self.degrees * (2 * float(torch.rand(())) - 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        is_mask = isinstance(inpt, tv_tensors.Mask)
        mode = Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR
        stored = v2.functional.to_pil_image(inpt[None] if is_mask else inpt)
        fill = self.mean if len(inpt) == 3 and not is_mask else self.mean[0]
        turned = stored.rotate(params["angle"], mode, fillcolor=IGNORED if is_mask else fill)
        x = v2.functional.pil_to_tensor(turned)
        return tv_tensors.wrap(x[0] if is_mask else x, like=inpt)


class _Blur(v2.Transform):
    """Blur pictures, along rows and then columns, which torchvision does in one slow pass."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        steps = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1)
        kernel = torch.exp(-(steps**2) / (2 * _BLUR_SIGMA**2))
        weights: list[float] = (kernel / kernel.sum()).tolist()
        x = inpt.as_subclass(Tensor).float()
        for dim in (-2, -1):
            size = x.shape[dim]
            pad = [0, 0, _BLUR_REACH, _BLUR_REACH] if dim == -2 else [_BLUR_REACH, _BLUR_REACH]
            border = "reflect" if size > _BLUR_REACH else "replicate"
            padded = functional.pad(x, pad, mode=border)
            x = weights[0] * padded.narrow(dim, 0, size)
            for k, weight in enumerate(weights[1:], 1):
                x.add_(padded.narrow(dim, k, size), alpha=weight)
        return tv_tensors.wrap(x.round_().to(torch.uint8), like=inpt)
