"""Settings for segmentation from image labels: small ones."""

from foveal.config import (
    ActivationConfig,
    AugmentConfig,
    DataConfig,
    MiningConfig,
    SegmentAugmentConfig,
    SlidingConfig,
    WeakClassifierConfig,
    WeakConfig,
)


def weak_scenes() -> WeakConfig:
    """Return a run from image labels on the built-in scenes that a laptop can train.

    Half-width MobileNetV2s with coordinate attention from random weights: a classifier whose maps
    have stride 8, and LR-ASPP for segmentation. Foveal's choice, not a paper's; no paper's numbers
    belong to it.
    """
    return WeakConfig(
        model="lraspp",
        backbone="mobilenetv2_050_coordinate",
        data=DataConfig(layout="scenes", image_size=128, batch_size=16),
        augment=SegmentAugmentConfig(min_scale=0.75, max_scale=1.5, rotate=10.0, blur=0.0),
        sliding=SlidingConfig(window=0, flip=False),
        epochs=10,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.01,
        schedule="poly",
        head_lr_scale=1.0,
        classifier=WeakClassifierConfig(
            backbone="mobilenetv2_050_coordinate",
            model_args={"output_stride": 8},
            data=DataConfig(image_size=128, batch_size=32),
            augment=AugmentConfig(min_scale=0.5),
            epochs=12,
            lr=2e-3,
        ),
        activation=ActivationConfig(batch_size=16),
        mining=MiningConfig(tau=0.3, max_steps=4),
    )
