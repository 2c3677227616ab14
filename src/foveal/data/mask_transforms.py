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

_BLUR_SIZE, _BLUR_SIGMA = 5, 1.1  # OpenCV's sigma of this size: 0.3 ((5 - 1) / 2 - 1) + 0.8


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
        mean = [round(255 * value) for value in preprocess.mean]
        fill: dict[type | str, Any] = {tv_tensors.Image: mean, tv_tensors.Mask: IGNORED}
        steps: list[v2.Transform] = []
        if (augment.min_scale, augment.max_scale) != (1, 1):
            mode = InterpolationMode(preprocess.interpolation)
            steps.append(_RandomScale(augment.min_scale, augment.max_scale, mode))
        if augment.rotate:
            rotation = v2.RandomRotation(augment.rotate, InterpolationMode.BILINEAR, fill=fill)
            steps.append(v2.RandomApply([rotation], p=0.5))
        if augment.blur:
            blur = v2.GaussianBlur(_BLUR_SIZE, sigma=_BLUR_SIGMA)
            steps.append(v2.RandomApply([blur], p=augment.blur))
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
