"""The built-in scenes: generated pictures of clothing with every label that a task can ask for."""

from foveal.data.scenes.details import DETAILS
from foveal.data.scenes.domains import DOMAINS
from foveal.data.scenes.maps import SceneMaps, read_maps
from foveal.data.scenes.masks import SceneMasks, read_masks
from foveal.data.scenes.plan import CLASSES, FINE_CLASSES, SPLITS
from foveal.data.scenes.reading import LABELS, ScenePictures, read
from foveal.data.scenes.scene import VERSION, Scene, Scenes

__all__ = [
    "CLASSES",
    "DETAILS",
    "DOMAINS",
    "FINE_CLASSES",
    "LABELS",
    "SPLITS",
    "VERSION",
    "Scene",
    "SceneMaps",
    "SceneMasks",
    "ScenePictures",
    "Scenes",
    "read",
    "read_maps",
    "read_masks",
]
