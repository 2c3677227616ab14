"""Settings of the DeepViT paper."""

import dataclasses

from foveal.config import AugmentConfig, ClassifyConfig, DataConfig


def deepvit_small_imagenet() -> ClassifyConfig:
    """Return the ImageNet-1k recipe of DeepViT-S, for one process.

    The settings released with the official code, DeiT's for the most part: AdamW with learning rate
    5e-4 and weight decay 0.05, a cosine over 300 epochs with 5 of warm-up, label smoothing 0.1,
    RandAugment of magnitude 9, colour jitter 0.4, erasing 0.25, mixup 0.8 or cutmix 1.0 in each
    batch, stochastic depth 0.2, averaged weights of decay 0.99996. They have 32 pictures per
    process and do not say how many processes: that eight make 256, which ``accumulate`` does here,
    is foveal's assumption. With several processes divide ``accumulate`` by their number. Crops of
    at least 0.08 of the area and mirror images are foveal's choice.

    What a config cannot say: the authors' warm-up begins at 1e-6, here at zero; their cosine ends
    at 1e-5 and 10 further epochs follow at that rate, where the cosine here ends at zero; and their
    RandAugment draws its magnitude, with a deviation of 0.5, and other directions of change.

    Source: the official code of Zhou et al. 2021, arXiv:2103.11886.
    """
    return ClassifyConfig(
        model="deepvit_small_patch16_224",
        model_args={"drop_path_rate": 0.2},
        # BatchNorm of attention maps sees 32 pictures at a time, as in the authors' runs.
        data=DataConfig(layout="imagefolder", image_size=224, batch_size=32, workers=8),
        augment=AugmentConfig(
            min_scale=0.08,
            hflip=0.5,
            color_jitter=0.4,
            randaugment=9,
            erasing=0.25,
            mixup=0.8,
            cutmix=1.0,
        ),
        loss_args={"label_smoothing": 0.1},
        epochs=300,
        optimizer="adamw",
        lr=5e-4,
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=5.0,
        ema=True,
        ema_decay=0.99996,
        accumulate=8,
    )


def deepvit_32_imagenet() -> ClassifyConfig:
    """Return the ImageNet-1k recipe of the 32 blocks with re-attention in all, for one process.

    As :func:`deepvit_small_imagenet`, but for mixup 0.1 without cutmix, mixed precision, and a
    second loss that keeps attention maps apart: 0.1 times the released code's cosine similarity of
    the first 12 pairs of blocks. The paper's measure, of what tokens contribute in all blocks, is
    ``attention_similarity_pairs=None``. The authors' scripts do not start in a current environment,
    and their learning rate for this loss is not known to differ.

    Source: the official code of Zhou et al. 2021, arXiv:2103.11886.
    """
    small = deepvit_small_imagenet()
    return dataclasses.replace(
        small,
        model="deepvit_32_patch16_224",
        augment=dataclasses.replace(small.augment, mixup=0.1, cutmix=0.0),
        attention_similarity=0.1,
        attention_similarity_pairs=12,
        amp="fp16",
    )
