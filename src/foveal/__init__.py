"""foveal: methods of vision papers as one PyTorch toolkit.

In this version coordinate and triplet attention, re-attention, the sandglass block, strip pooling,
networks with them, insertion into other networks, online label smoothing; image classification,
semantic segmentation, and saliency, edges and skeletons from one network (DFI); explanations.

Everything here is loaded at first use, so that ``import foveal`` and ``foveal --help`` are quick.
Import ``foveal.models`` before ``timm.create_model("mobilenetv2_100_coordinate")``.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "config",
        "data",
        "explanation",
        "exporting",
        "layers",
        "losses",
        "metrics",
        "models",
        "official",
        "recipes",
        "surgery",
        "tasks",
    ],
    submod_attrs={
        "config": ["ClassifyConfig", "DenseConfig", "Insertion", "SegmentConfig"],
        "models": ["create_model", "list_models"],
        "official": ["load_official"],
        "surgery": ["InsertionReport", "insert"],
        "tasks.evaluation": ["evaluate"],
        "tasks.explaining": ["explain"],
        "tasks.prediction": ["predict"],
        "tasks.run": ["Run", "load"],
        "tasks.shipping": ["export"],
        "tasks.training": ["train"],
    },
)
