"""Settings of the online label smoothing paper."""

from foveal.config import AugmentConfig, ClassifyConfig, DataConfig


def ols_cifar100() -> ClassifyConfig:
    """Return the CIFAR-100 recipe, for the folder with CIFAR-100's Python pickles.

    As in the authors' script: ResNet-34 with a 3x3 stem, 300 epochs of SGD with Nesterov momentum
    0.9, batch 128, learning rate 0.1 divided by 10 after 150 and 225 epochs, weight decay 5e-4,
    shifts by up to 4 pixels and mirror images, seed 2019, and their start of the soft labels at
    zeros. Three things differ: the script evaluates the test pictures after each epoch and reports
    the best, where foveal chooses the epoch on a tenth of the training pictures; it decays every
    weight, where foveal leaves out biases and BatchNorm; and it normalises with CIFAR-100's mean
    and deviation, where foveal takes the network's.

    Source: official code of Zhang et al. 2021, arXiv:2011.12562.
    """
    return ClassifyConfig(
        model="resnet34",
        model_args={"stem_stride": 1},
        data=DataConfig(layout="cifar", image_size=32, batch_size=128),
        augment=AugmentConfig(min_scale=1.0, padding=4, hflip=0.5),
        loss="online_label_smoothing_cifar",
        epochs=300,
        optimizer="sgd",  # timm's name for SGD with Nesterov momentum
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="multistep",
        milestones=(150, 225),
        warmup_epochs=0.0,
        seed=2019,
    )


def ols_finegrained() -> ClassifyConfig:
    """Return the recipe of CUB, Cars, Aircraft and Flowers, from a pretrained ResNet-50.

    As in the authors' script: 100 epochs of SGD with momentum 0.9, batch 64, learning rate 0.01
    divided by 10 after 45 and 80 epochs, weight decay 1e-4, and their loss for these sets, whose
    two terms have weight 1 each and whose sure rows freeze. Three things differ: the script resizes
    pictures to 256x256 and cuts 224x224 out of them, where foveal crops at least 0.77 of the area,
    about the same share, at changing sizes and aspects; it decays every weight, where foveal leaves
    out biases and BatchNorm; and it trains on all training pictures and keeps the best test epoch,
    where foveal chooses the epoch on validation pictures, a tenth of CUB's and Cars' training part
    and the official half of Aircraft's. Set ``data.root``; the layout is found.

    Source: official code of Zhang et al. 2021, arXiv:2011.12562.
    """
    return ClassifyConfig(
        model="resnet50",
        pretrained=True,
        data=DataConfig(image_size=224, batch_size=64, workers=8),
        augment=AugmentConfig(min_scale=0.77, hflip=0.5),
        loss="online_label_smoothing_finegrained",
        epochs=100,
        optimizer="momentum",  # timm's name for SGD with momentum, without Nesterov
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="multistep",
        milestones=(45, 80),
        warmup_epochs=0.0,
    )


def ols_imagenet() -> ClassifyConfig:
    """Return an ImageNet-1k recipe of ResNet-50, for one process.

    The authors released no ImageNet training that runs on several GPUs. From their script and
    their answers to users: batch 256 in all, SGD with Nesterov momentum 0.9, learning rate 0.1,
    weight decay 1e-4, colour jitter 0.4. That the rate is divided by 10 after 75, 150, 225 and 250
    epochs is quoted by other authors. Foveal's choice: 300 epochs, crops of at least 0.08 of the
    area, mirror images, the paper's uniform start of the soft labels. AlexNet's colour noise is
    left out. With several processes ``data.batch_size`` is per process: divide it by their number.

    Source: Zhang et al. 2021, arXiv:2011.12562, and its official code.
    """
    return ClassifyConfig(
        model="resnet50",
        data=DataConfig(layout="imagefolder", image_size=224, batch_size=256, workers=8),
        augment=AugmentConfig(min_scale=0.08, hflip=0.5, color_jitter=0.4),
        loss="online_label_smoothing",
        epochs=300,
        optimizer="sgd",  # timm's name for SGD with Nesterov momentum
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="multistep",
        milestones=(75, 150, 225, 250),
        warmup_epochs=0.0,
    )
