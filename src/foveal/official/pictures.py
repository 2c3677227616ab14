"""How authors prepared their pictures."""

from typing import Any


def picture_config(
    architecture: str,
    in_chans: int,
    num_classes: int,
    *,
    first_conv: str,
    classifier: str,
    side: int = 224,
    interpolation: str = "bilinear",
) -> dict[str, Any]:
    """Return the usual preparation for ImageNet, for whoever predicts with a network.

    Args:
        architecture: the network's name.
        in_chans: channels of its input.
        num_classes: its outputs.
        first_conv: its first convolution's name.
        classifier: its last layer's name.
        side: of its pictures, pixels.
        interpolation: how pictures are resized, in timm's words.
    """
    return {
        "architecture": architecture,
        "input_size": (in_chans, side, side),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.875,
        "interpolation": interpolation,
        "num_classes": num_classes,
        "first_conv": first_conv,
        "classifier": classifier,
    }
