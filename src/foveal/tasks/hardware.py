"""From the machine's part of a config to Lightning's Trainer; what ``env.json`` records."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

import torch

import foveal
from foveal.config import SegmentConfig, TrainConfig

PRECISION = {"no": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
RECORDED = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy", "pillow")


def trainer_arguments(config: TrainConfig) -> dict[str, Any]:
    """Return the Trainer's arguments for this machine, one process or several under torchrun.

    Raises:
        ValueError: the device or the arithmetic asked for does not exist here.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU here; use --device auto or cpu")
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    if config.amp == "fp16" and not on_gpu:
        raise ValueError("--amp fp16 needs a GPU; on a CPU use --amp bf16 or no")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return {
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": local_size,
        "num_nodes": world_size // local_size,
        "strategy": "ddp" if world_size > 1 else "auto",
        "precision": PRECISION[config.amp],
        # A GPU's few crops are too few for the statistics of BatchNorm.
        "sync_batchnorm": on_gpu and world_size > 1 and isinstance(config, SegmentConfig),
    }


def environment() -> dict[str, Any]:
    """Return versions, machine and command, for ``env.json``."""
    versions = {}
    for package in RECORDED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "foveal": foveal.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "packages": versions,
        "command": sys.argv,
    }
