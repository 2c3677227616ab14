"""The first run of a new user."""

from foveal.config import AugmentConfig, ClassifyConfig, DataConfig


def demo() -> ClassifyConfig:
    """Return a run on the built-in fashion pictures that takes minutes on two cores."""
    return ClassifyConfig(
        model="mobilenetv2_050_coordinate",
        model_args={"stem_stride": 1},
        data=DataConfig(image_size=28, batch_size=64),
        augment=AugmentConfig(min_scale=1.0, padding=2, hflip=0.5),
        epochs=8,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
        warmup_epochs=1.0,
    )
