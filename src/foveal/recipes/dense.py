"""Settings for saliency, edges and skeletons: those of DFI as far as they are known, small ones."""

from foveal.config import (
    DenseAugmentConfig,
    DenseConfig,
    DenseDataConfig,
    InferenceConfig,
)

PROTOCOL = InferenceConfig(edge_scales=(0.5, 1.0, 1.5, 2.0), skeleton_scales=(0.5, 1.0, 1.5))
"""How the official code looks at pictures in its test."""


def dfi_joint() -> DenseConfig:
    """Return the joint recipe of DFI, a reconstruction: no training code was published.

    From the code of PoolNet, the sibling by the same authors that learns two of the tasks: one
    picture of each set in a batch, their losses summed over pixels and added, gradients of 10
    batches accumulated, Adam with learning rate 5e-5 and weight decay 5e-4, BatchNorm frozen, no
    augmentation but mirror images (there of saliency alone). Recalled of DFI, not read: 12 epochs,
    the rate divided by 10 after the 9th; data sets DUTS, the augmented BSDS500 list with
    Pascal Context, and SK-LARGE augmented.

    Differences: the authors train on pictures of their own sizes, here they lie, whole if they
    have up to 481 pixels on a side, in squares whose rest has no label; an epoch has as many
    pictures as all sets have together, where theirs are cut at 30,000 batches; the optimiser keeps
    its moments when the rate falls. The test looks at scales as the official code does.

    Give ``--data.saliency.root``, ``--data.edge.root``, ``--data.skeleton.root`` and, as
    ``--checkpoint``, weights of a ResNet-50 in the layout of Caffe: BatchNorm is frozen, so that
    random weights cannot learn.

    Source: Liu, Hou, Cheng 2020, arXiv:2004.08595, and the official code of arXiv:1904.09569.
    """
    return DenseConfig(
        model="dfi",
        model_args={"frozen_norm": True},
        data=DenseDataConfig(image_size=481, batch_size=3, workers=4),
        augment=DenseAugmentConfig(min_scale=1.0, max_scale=1.0, rotate=0.0, hflip=0.5),
        inference=PROTOCOL,
        loss="balanced_cross_entropy",
        loss_args={"reduction": "sum_per_image"},
        epochs=12,
        accumulate=10,
        optimizer="adam",
        lr=5e-5,
        weight_decay=5e-4,
        schedule="multistep",
        milestones=(9,),
        decay_rate=0.1,
        warmup_epochs=0.0,
    )


def dfi_small() -> DenseConfig:
    """Return a run on some hundred pictures of each task that a laptop can train.

    A decoder of half width or less on a half-width MobileNetV2 with coordinate attention, from
    random weights, crops of 160 pixels. Foveal's choice, not a paper's; set the sets' roots.
    """
    return DenseConfig(
        model="dfi",
        backbone="mobilenetv2_050_coordinate",
        data=DenseDataConfig(image_size=160, batch_size=6),
        augment=DenseAugmentConfig(min_scale=0.5, max_scale=1.0, rotate=0.0),
        epochs=40,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
    )


def dfi_scenes() -> DenseConfig:
    """Return a run on the built-in scenes that a laptop can train in some minutes.

    The network of :func:`dfi_small`. Foveal's choice, not a paper's.
    """
    return DenseConfig(
        model="dfi",
        backbone="mobilenetv2_050_coordinate",
        data=DenseDataConfig(layout="scenes", image_size=96, batch_size=8),
        augment=DenseAugmentConfig(min_scale=0.8, max_scale=1.2, rotate=10.0),
        epochs=1,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
        warmup_epochs=0.1,
    )
