"""From a picture to what the network sees: preprocessing for evaluation, augmentation for training.

Randomness comes from torch's global generator; ``data/loading.py`` seeds it for each sample, so
that a sample's augmentation depends on (seed, epoch, index) and on nothing else.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import foveal.torchvision_check  # noqa: F401  (before torchvision)

# isort: split

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from foveal.config import AugmentConfig
from foveal.names import unknown

CHANNEL_ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class Preprocess:
    """What a network wants to see, and the function that makes it from a picture.

    The picture's short side is brought to ``image_size / crop_pct`` pixels, the middle
    ``image_size`` square is cut out, values become float32 in [0, 1] and are normalised.

    Args:
        image_size: side of the square, pixels.
        mean: per channel in the order of ``channel_order``, for values in [0, 1].
        std: likewise.
        crop_pct: share of the short side that the crop keeps, in (0, 1].
        interpolation: ``bilinear`` or ``bicubic``, antialiased.
        channel_order: ``rgb``, or ``bgr`` for networks that want blue first.

    Shape:
        input: a PIL image; output: float32 [C, image_size, image_size], C = len(mean); colours in
        the order of ``channel_order``, or grey.

    Raises:
        ValueError: another order of channels.
    """

    image_size: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_pct: float = 1.0
    interpolation: str = "bilinear"
    channel_order: str = "rgb"

    def __post_init__(self) -> None:
        if self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(unknown("channel_order", self.channel_order, CHANNEL_ORDERS))

    @property
    def channels(self) -> int:
        """Number of channels of the result: 1 (grey) or 3 (colours)."""
        return len(self.mean)

    @property
    def fill(self) -> list[int]:
        """What a picture is padded with, RGB or grey in 0..255: the mean, which becomes about 0."""
        return [round(255 * value) for value in self._reordered(torch.tensor(self.mean)).tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON and file metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Build from what :meth:`to_dict` returned."""
        fields = dict(values)
        return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the network's input for one picture."""
        return self.normalize(self.geometry()(with_channels(image, self.channels)))

    def geometry(self) -> v2.Transform:
        """Return resize and centre crop."""
        side = math.floor(self.image_size / self.crop_pct)
        mode = InterpolationMode(self.interpolation)
        return v2.Compose([v2.Resize(side, mode, antialias=True), v2.CenterCrop(self.image_size)])

    def normalize(self, image: Image.Image) -> torch.Tensor:
        """Return float32 [C, H, W], normalised, of a picture already at its final size."""
        x: torch.Tensor = v2.functional.to_dtype(
            v2.functional.to_image(image), torch.float32, scale=True
        )
        x = v2.functional.normalize(self._reordered(x), list(self.mean), list(self.std))
        return x

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        """Return what was normalised as a picture again, [C, H, W] in [0, 1], RGB or grey."""
        mean, std = (x.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return self._reordered(x * std + mean).clamp(0, 1)

    def _reordered(self, x: torch.Tensor) -> torch.Tensor:
        """Return channels, [C, ...], brought from RGB to the network's order, or back."""
        return x.flip(0) if self.channel_order == "bgr" else x


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Return a picture as grey (1) or RGB (3)."""
    return image.convert("L" if channels == 1 else "RGB")


class WholePreprocess(Preprocess):
    """What a network for pixels wants to see: the whole picture at its own size, normalised.

    ``image_size`` is the side of the crops that it was trained on; ``crop_pct`` is of no account.

    Shape:
        input: a PIL image; output: float32 [C, H, W], C = len(mean), colours in the order of
        ``channel_order``, or grey.
    """

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the network's input for one picture."""
        return self.normalize(with_channels(image, self.channels))


class TrainTransform:
    """Random crop, mirror, colour, RandAugment and erasing, then the network's normalisation.

    Args:
        preprocess: what the network wants to see.
        augment: which changes, and how strong.

    Shape:
        input: a PIL image; output: float32 [C, image_size, image_size].
    """

    def __init__(self, preprocess: Preprocess, augment: AugmentConfig) -> None:
        self.preprocess = preprocess
        size, mode = preprocess.image_size, InterpolationMode(preprocess.interpolation)
        steps: list[v2.Transform] = []
        if augment.min_scale < 1:
            scale = (augment.min_scale, 1.0)
            steps.append(v2.RandomResizedCrop(size, scale, interpolation=mode, antialias=True))
        else:
            steps.append(preprocess.geometry())
            if augment.padding:
                steps.append(v2.RandomCrop(size, padding=augment.padding))
        if augment.hflip:
            steps.append(v2.RandomHorizontalFlip(augment.hflip))
        if augment.vflip:
            steps.append(v2.RandomVerticalFlip(augment.vflip))
        if augment.color_jitter:
            steps.append(v2.ColorJitter(*[augment.color_jitter] * 3))
        if augment.randaugment:
            steps.append(v2.RandAugment(num_ops=2, magnitude=augment.randaugment))
        self.picture = v2.Compose(steps) if steps else v2.Identity()
        self.erase = v2.RandomErasing(augment.erasing) if augment.erasing else None

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return one augmented sample; draws from torch's global generator."""
        x = self.picture(with_channels(image, self.preprocess.channels))
        x = self.preprocess.normalize(x)
        return self.erase(x) if self.erase is not None else x
