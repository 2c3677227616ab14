"""Settings that are known to work: functions that return a config.

``foveal train classify --recipe NAME`` starts from one; flags override it. A new recipe is a
function in a file of this folder and a line below.
"""

from collections.abc import Callable

from foveal.config import TrainConfig
from foveal.recipes.coordinate import coordinate_imagenet
from foveal.recipes.deepvit import deepvit_32_imagenet, deepvit_small_imagenet
from foveal.recipes.demo import demo
from foveal.recipes.dense import dfi_joint, dfi_scenes, dfi_small
from foveal.recipes.online_label_smoothing import ols_cifar100, ols_finegrained, ols_imagenet
from foveal.recipes.sandglass import mobilenext_imagenet
from foveal.recipes.segmentation import (
    camvid_small,
    scenes_small,
    spnet_ade20k,
    spnet_cityscapes,
)
from foveal.recipes.triplet import triplet_mobilenetv2_imagenet, triplet_resnet50_imagenet
from foveal.recipes.weak import weak_scenes

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "demo": demo,
    "coordinate_imagenet": coordinate_imagenet,
    "triplet_resnet50_imagenet": triplet_resnet50_imagenet,
    "triplet_mobilenetv2_imagenet": triplet_mobilenetv2_imagenet,
    "mobilenext_imagenet": mobilenext_imagenet,
    "deepvit_small_imagenet": deepvit_small_imagenet,
    "deepvit_32_imagenet": deepvit_32_imagenet,
    "ols_cifar100": ols_cifar100,
    "ols_finegrained": ols_finegrained,
    "ols_imagenet": ols_imagenet,
    "spnet_ade20k": spnet_ade20k,
    "spnet_cityscapes": spnet_cityscapes,
    "camvid_small": camvid_small,
    "scenes_small": scenes_small,
    "dfi_joint": dfi_joint,
    "dfi_small": dfi_small,
    "dfi_scenes": dfi_scenes,
    "weak_scenes": weak_scenes,
}
