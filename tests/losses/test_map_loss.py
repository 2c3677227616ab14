"""The loss of several tasks, added up by hand from the cross entropies of single maps."""

import pytest
import torch

from foveal.losses import MapLoss, balanced_map_cross_entropy, map_cross_entropy

TASKS = ("saliency", "edge", "skeleton")
SIDES = {"saliency": 0, "edge": 2, "skeleton": 1}


@pytest.fixture
def outputs():
    torch.manual_seed(0)
    return {
        task: tuple(torch.randn(3, 1, 4, 6, dtype=torch.float64) for _ in range(1 + SIDES[task]))
        for task in TASKS
    }


@pytest.fixture
def targets():
    """Return soft labels; of the edges one picture has none, of the skeletons one is padded."""
    torch.manual_seed(1)
    found = {task: torch.rand(3, 1, 4, 6, dtype=torch.float64) for task in TASKS}
    for task in ("edge", "skeleton"):
        found[task][found[task] < 0.6] = 0
    found["edge"][1] = -1
    found["skeleton"][2, :, :, 4:] = -1
    return found


def by_hand(x, t, balanced):
    """Return the loss of one map: -t log s - (1 - t) log (1 - s), a mean of pictures' means."""
    of_pictures = []
    for logits, target in zip(x, t, strict=True):
        if not (target >= 0).any():
            continue
        positive = target > 0.5 if balanced else target >= 0
        counted = positive | (target == 0) if balanced else positive
        s = torch.sigmoid(logits)
        if balanced:
            n, m = int(positive.sum()), int((target == 0).sum())
            of_positive, of_negative = m / (n + m), 1.1 * n / (n + m)
            losses = torch.where(positive, -of_positive * s.log(), -of_negative * (1 - s).log())
        else:
            losses = -target * s.log() - (1 - target) * (1 - s).log()
        of_pictures.append(losses[counted].sum() / counted.sum())
    return sum(of_pictures) / len(of_pictures)


@pytest.mark.parametrize("name", ["balanced_cross_entropy", "cross_entropy"])
def test_terms_are_added_with_their_weights(name, outputs, targets):
    weights = {"saliency": 0.5, "edge": 2.0, "skeleton": 0.25}
    loss = MapLoss(
        TASKS, name, side_weight=0.3, **{f"{task}_weight": w for task, w in weights.items()}
    )
    expected = 0.0
    for task in TASKS:
        balanced = name != "cross_entropy" and task != "saliency"
        fused, *sides = (by_hand(x, targets[task], balanced) for x in outputs[task])
        expected += weights[task] * (fused + 0.3 * sum(sides))
    assert loss(outputs, targets).item() == pytest.approx(expected.item(), rel=1e-12)


def test_by_default_all_weigh_the_same(outputs, targets):
    terms = [MapLoss([task])(outputs, targets) for task in TASKS]
    assert MapLoss(TASKS)(outputs, targets).item() == pytest.approx(sum(terms).item(), rel=1e-12)
    assert terms[0].item() == map_cross_entropy(outputs["saliency"][0], targets["saliency"]).item()


def test_arguments_reach_the_terms(outputs, targets):
    loss = MapLoss(["edge"], threshold=0.8, negative_factor=3.0, reduction="sum_per_image")
    expected = sum(
        balanced_map_cross_entropy(
            x, targets["edge"], threshold=0.8, negative_factor=3.0, reduction="sum_per_image"
        )
        for x in outputs["edge"]
    )
    assert loss(outputs, targets).item() == pytest.approx(expected.item(), rel=1e-12)
    plain = MapLoss(["edge"], "cross_entropy", reduction="sum_per_image")
    means = MapLoss(["edge"], "cross_entropy")
    # 24 labelled pixels in each of the two pictures that have any.
    assert plain(outputs, targets).item() == pytest.approx(24 * means(outputs, targets).item())


def test_a_task_whose_weight_is_zero_does_not_count(outputs, targets):
    found = MapLoss(TASKS, edge_weight=0.0)(outputs, targets)
    expected = MapLoss(("saliency", "skeleton"))(outputs, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_pictures_without_labels_for_a_task_train_the_others(outputs, targets):
    """In a batch of one set, the other tasks' terms are 0, and their gradients are, not nan."""
    targets = {task: torch.full_like(t, -1) for task, t in targets.items()} | {
        "saliency": targets["saliency"]
    }
    outputs = {t: tuple(x.clone().requires_grad_() for x in xs) for t, xs in outputs.items()}
    loss = MapLoss(TASKS)(outputs, targets)
    loss.backward()
    expected = MapLoss(["saliency"])(outputs, targets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert outputs["saliency"][0].grad.any()
    for task in ("edge", "skeleton"):
        assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in outputs[task])


def test_a_batch_without_any_label_has_loss_zero(outputs, targets):
    outputs = {t: tuple(x.clone().requires_grad_() for x in xs) for t, xs in outputs.items()}
    loss = MapLoss(TASKS)(outputs, {task: torch.full_like(t, -1) for task, t in targets.items()})
    loss.backward()
    assert loss.item() == 0
    assert not any(x.grad.any() for xs in outputs.values() for x in xs)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "balanced_cross_entropi"}, "dense tasks 'balanced_cross_entropi': did you mean"),
        ({"reduction": "sum_per_imag"}, "unknown reduction 'sum_per_imag': did you mean"),
        ({"threshold": 1.0}, r"threshold must lie in \[0, 1\), not 1.0"),
        ({"threshold": float("nan")}, r"threshold must lie in \[0, 1\), not nan"),
        ({"saliency_weight": -1.0}, "saliency_weight must be at least 0 and finite, not -1.0"),
        ({"edge_weight": float("nan")}, "edge_weight must be at least 0 and finite, not nan"),
        ({"side_weight": -0.5}, "side_weight must be at least 0 and finite, not -0.5"),
        (
            {"negative_factor": float("inf")},
            "negative_factor must be at least 0 and finite, not inf",
        ),
        ({"tasks": ("saliency", "edges")}, "unknown task 'edges': did you mean 'edge'"),
        ({"tasks": ()}, "tasks must be at least one of saliency, edge, skeleton"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        MapLoss(**{"tasks": TASKS} | arguments)
    assert "\n" not in str(error.value)
