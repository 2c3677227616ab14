"""The pictures of a dense run."""

from pathlib import Path

from foveal.tasks.dense import DenseSetup, DenseTask
from foveal.tasks.report import Figure


def draw(task: DenseTask, setup: DenseSetup, folder: Path) -> list[Figure]:
    """Draw what a tested network does, and return the figures in the report's order."""
    return []
