"""Which tasks of a dense run are left, and which of its pictures."""

from pathlib import Path

import pytest

from foveal.config import ClassifyConfig, DenseConfig, DenseDataConfig, MapSetConfig
from foveal.tasks.chosen_tasks import with_tasks

LEARNED = ("saliency", "edge")
RUN = Path("runs/a")


def test_the_pictures_of_other_tasks_are_left_out_with_them():
    sets = {task: MapSetConfig(root=task) for task in LEARNED}
    config = DenseConfig(tasks=LEARNED, data=DenseDataConfig(batch_size=3, **sets))
    chosen = with_tasks(config, ["edge"], LEARNED, RUN)
    assert chosen.tasks == ("edge",)
    assert chosen.data.edge.root == "edge"
    assert chosen.data.saliency.root is None
    assert chosen.data.batch_size == 3
    assert with_tasks(config, None, LEARNED, RUN) is config
    assert with_tasks(config, ["edge", "saliency"], LEARNED, RUN) == config


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "tasks must be at least one of saliency, edge"),
        (["skeleton"], "runs/a has learned saliency and edge only, not skeleton"),
        (["edges"], "unknown task 'edges': did you mean 'edge'"),
    ],
)
def test_wrong_tasks(tasks, message):
    with pytest.raises(ValueError, match=message):
        with_tasks(DenseConfig(tasks=LEARNED), tasks, LEARNED, RUN)


def test_runs_of_other_tasks():
    with pytest.raises(ValueError, match="tasks are of dense runs, and runs/a is of classify"):
        with_tasks(ClassifyConfig(model="resnet18"), ["edge"], LEARNED, RUN)
