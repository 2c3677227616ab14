"""The table of networks."""

import pytest

from foveal.models import list_models
from foveal.models.listing import table
from foveal.models.published import PUBLISHED


def test_every_own_network_is_listed_with_its_measured_size():
    lines = table().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list_models()
    (row,) = (line for line in lines if line.startswith("mobilenetv2_100_coordinate"))
    assert "3x224x224" in row
    assert "3.951 M" in row
    assert "306.7 M" in row


# Where the size published is not that of the authors' own code, or was reached by no placement.
OTHERWISE = {
    "mobilenext_075": 2.766,
    "mobilenext_050": 2.152,
    "mobilenext_035": 1.914,
    "mobilenext_100_se": 3.896,
    "deepvit_16_patch16_224": 24.427,  # published 24.5
    "deepvit_large_patch16_224": 55.636,  # published 55
}


def test_published_figures_stand_beside_ours_and_agree_to_their_last_digit():
    lines = table(published=True).splitlines()
    assert {line.split()[0] for line in lines[1:]} == set(PUBLISHED)
    for line in lines[1:]:
        name, _, ours, _, _, _, theirs, *_ = line.split()
        if name in OTHERWISE:
            assert float(ours) == OTHERWISE[name]
            continue
        decimals = len(theirs.partition(".")[2])
        assert round(float(ours), decimals) == float(theirs), name


@pytest.mark.parametrize("published", [False, True])
def test_a_task_without_networks_is_said(published):
    with pytest.raises(ValueError, match="there are no networks for the task detect in this ver"):
        table(task="detect", published=published)


def test_networks_for_segmentation_are_counted_at_their_own_size():
    lines = table(task="segment").splitlines()
    assert [line.split()[0] for line in lines[1:]] == list_models(task="segment")
    (row,) = (line for line in lines if line.startswith("spnet"))
    assert row.split()[1:4] == ["3x480x480", "47.739", "M"]
    with pytest.raises(ValueError, match="no published figures are known here of spnet, deeplab"):
        table(task="segment", published=True)


def test_patterns_reach_timm_and_tasks_filter():
    assert "resnet18 " in table("resnet18")
    names = [
        line.split()[0] for line in table("mobilenetv2_050_*", task="classify").splitlines()[1:]
    ]
    assert names == [f"mobilenetv2_050_{a}" for a in ("cbam", "coordinate", "se", "triplet")]
    with pytest.raises(ValueError, match="unknown model 'mobilnetv2_100': did you mean"):
        table("mobilnetv2_100")
    with pytest.raises(ValueError, match="unknown task 'clasify': did you mean 'classify'"):
        table(task="clasify")
