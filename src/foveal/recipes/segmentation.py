"""Settings for semantic segmentation: those of the SPNet paper, and small ones."""

from foveal.config import DataConfig, SegmentAugmentConfig, SegmentConfig, SlidingConfig

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of the official multi-scale test; as a flag ``--sliding.scales 0.5,0.75,...``."""


def spnet_ade20k() -> SegmentConfig:
    """Return the ADE20K recipe of SPNet-50, for one process.

    As in the authors' released configuration: crops of 480 pixels, scales of 0.5 to 2, rotation by
    up to 10 degrees, blur and mirror images; 120 epochs of SGD with momentum 0.9, batch 16 over
    four GPUs, learning rate 0.01 and ten times that for the heads, polynomial decay per step,
    weight decay 1e-4, cross entropy, 0.4 of the auxiliary one. The test looks at the picture with
    its long side at 512 pixels. Two things differ: the authors decay every weight, where foveal
    leaves out biases and BatchNorm; and their weights for validation are the last epoch's.
    With several processes ``data.batch_size`` is per process: divide it by their number.

    The paper's tables come from another code base, and its rate there (0.004, recalled) is another.
    The backbone starts at random unless ``--checkpoint`` names a file of its ImageNet weights (or
    ``--pretrained`` finds published ones of timm's ``resnet50s``).

    Source: official code of Hou et al. 2020, arXiv:2003.13328.
    """
    return SegmentConfig(
        model="spnet",
        backbone="resnet50s",
        data=DataConfig(layout="ade20k", image_size=480, batch_size=16, workers=8),
        augment=SegmentAugmentConfig(min_scale=0.5, max_scale=2.0, rotate=10.0, blur=0.5),
        sliding=SlidingConfig(window=480, long_side=512),
        epochs=120,
        optimizer="momentum",  # timm's name for SGD with momentum, without Nesterov
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="poly",
        aux_weight=0.4,
        head_lr_scale=10.0,
    )


def spnet_cityscapes() -> SegmentConfig:
    """Return the Cityscapes recipe of SPNet-101, for one process.

    As in the authors' released configuration: crops of 768 pixels, scales of 0.5 to 1.75, rotation
    by up to 1 degree, blur and mirror images; 180 epochs of SGD with momentum 0.9, batch 8 over
    four GPUs, learning rate 0.005 and ten times that for the heads, the rest as in
    :func:`spnet_ade20k`. The paper mines hard examples there (recalled), which the released code
    has switched off: ``--loss ohem_cross_entropy``. Users report about 73 % of mean intersection
    over union with this code, its author 79.5 for the ResNet-50.

    Source: official code of Hou et al. 2020, arXiv:2003.13328, and its issue 13.
    """
    return SegmentConfig(
        model="spnet",
        backbone="resnet101s",
        data=DataConfig(layout="cityscapes", image_size=768, batch_size=8, workers=8),
        augment=SegmentAugmentConfig(min_scale=0.5, max_scale=1.75, rotate=1.0, blur=0.5),
        sliding=SlidingConfig(window=768, long_side=2048),
        epochs=180,
        optimizer="momentum",
        lr=0.005,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="poly",
        aux_weight=0.4,
        head_lr_scale=10.0,
    )


def camvid_small() -> SegmentConfig:
    """Return a run on CamVid that a laptop can train, from random weights.

    For pictures of 240 by 180 pixels or more: DeepLabV3 at stride 16 on a half-width MobileNetV2
    with coordinate attention, crops of 176 pixels, pictures scored whole. One learning rate for
    all, as nothing is pretrained. Foveal's choice, not a paper's; set ``data.root``.
    """
    return SegmentConfig(
        model="deeplabv3",
        backbone="mobilenetv2_050_coordinate",
        data=DataConfig(layout="camvid", image_size=176, batch_size=8),
        augment=SegmentAugmentConfig(min_scale=0.5, max_scale=2.0, rotate=0.0, blur=0.0),
        sliding=SlidingConfig(window=0, flip=False),
        epochs=60,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.01,
        schedule="poly",
        head_lr_scale=1.0,
    )


def scenes_small() -> SegmentConfig:
    """Return a run on the built-in scenes that a laptop can train, from random weights.

    LR-ASPP on a half-width MobileNetV2 with coordinate attention; whole pictures are scored at
    once. Foveal's choice, not a paper's.
    """
    return SegmentConfig(
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
    )
