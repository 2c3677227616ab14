"""Settings of the triplet attention paper."""

from foveal.config import AugmentConfig, ClassifyConfig, DataConfig


def triplet_resnet50_imagenet() -> ClassifyConfig:
    """Return the ImageNet-1k recipe of ResNet-50 with triplet attention, for one process.

    As in the authors' script: 100 epochs of SGD with momentum 0.9, batch 256, learning rate 0.1
    without warm-up, divided by 10 every 30 epochs, weight decay 1e-4, crops of random size and
    mirror images, seed 1234, no label smoothing, no mixed precision. One thing differs: the script
    decays every weight, where foveal leaves out biases and BatchNorm. With several processes
    ``data.batch_size`` is per process: divide it by their number.

    Source: official code of Misra et al. 2021, arXiv:2010.03045.
    """
    return ClassifyConfig(
        model="resnet50_triplet",
        data=DataConfig(layout="imagefolder", image_size=224, batch_size=256, workers=8),
        augment=AugmentConfig(min_scale=0.08, hflip=0.5),
        epochs=100,
        optimizer="momentum",  # timm's name for SGD with momentum, without Nesterov
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="multistep",
        milestones=(30, 60, 90),
        warmup_epochs=0.0,
        seed=1234,
    )


def triplet_mobilenetv2_imagenet() -> ClassifyConfig:
    """Return the ImageNet-1k recipe of MobileNetV2 with triplet attention, for one process.

    As in the authors' script: 400 epochs of SGD with momentum 0.9, batch 96, learning rate 0.045
    without warm-up, multiplied by 0.98 after each epoch, weight decay 4e-5, dropout 0.25, crops of
    random size and mirror images, seed 1234, no label smoothing, no mixed precision. One thing
    differs: the script decays every weight, where foveal leaves out biases and BatchNorm. With
    several processes ``data.batch_size`` is per process: divide it by their number.

    Source: official code of Misra et al. 2021, arXiv:2010.03045.
    """
    return ClassifyConfig(
        model="mobilenetv2_100_triplet",
        model_args={"drop_rate": 0.25},
        data=DataConfig(layout="imagefolder", image_size=224, batch_size=96, workers=8),
        augment=AugmentConfig(min_scale=0.08, hflip=0.5),
        epochs=400,
        optimizer="momentum",
        lr=0.045,
        momentum=0.9,
        weight_decay=4e-5,
        schedule="multistep",
        milestones=tuple(range(1, 400)),
        decay_rate=0.98,
        warmup_epochs=0.0,
        seed=1234,
    )
