"""Settings of the coordinate attention paper."""

from foveal.config import AugmentConfig, ClassifyConfig, DataConfig


def coordinate_imagenet() -> ClassifyConfig:
    """Return the ImageNet-1k recipe of coordinate attention, for one process.

    The official README states 200 epochs, random crops, a cosine schedule, and no label smoothing,
    augmentation, erasing or mixup. Learning rate 0.05, batch 256, SGD with momentum 0.9 and weight
    decay 4e-5 are recalled, not in a source at hand. With several processes ``data.batch_size`` is
    per process: divide it by their number.

    Source: Hou et al. 2021, arXiv:2103.02907, section 4.1.
    """
    return ClassifyConfig(
        model="mobilenetv2_100_coordinate",
        model_args={"drop_rate": 0.1},
        data=DataConfig(layout="imagefolder", image_size=224, batch_size=256, workers=8),
        augment=AugmentConfig(min_scale=0.08, hflip=0.5),
        epochs=200,
        optimizer="momentum",  # timm's name for SGD with momentum, without Nesterov
        lr=0.05,
        momentum=0.9,
        weight_decay=4e-5,
        schedule="cosine",
        warmup_epochs=0.0,
    )
