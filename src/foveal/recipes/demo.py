"""The first run of a new user."""

from foveal.config import AugmentConfig, ClassifyConfig, DataConfig


def demo() -> ClassifyConfig:
    """Return a run on the built-in fashion pictures that takes minutes on two cores.

    The first four stages of a half-width MobileNetV2 with coordinate attention, whose feature maps
    are 28 to 4 pixels wide. Network, learning rate, epochs and averaging were chosen on validation
    pictures.
    """
    return ClassifyConfig(
        model="mobilenetv2_050_coordinate",
        model_args={"stem_stride": 1, "stages": 4},
        data=DataConfig(image_size=28, batch_size=64),
        augment=AugmentConfig(min_scale=1.0, padding=1, hflip=0.5),
        epochs=9,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
        warmup_epochs=1.0,
        ema=True,
        ema_decay=0.99,
    )
