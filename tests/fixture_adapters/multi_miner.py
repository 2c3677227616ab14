"""Replays region mining: sequences of steps, the closed loop, its primitives, its metrics."""

from collections.abc import Callable, Iterator
from dataclasses import fields

import torch

from fixture_adapters.core import Adapter, Args, Comparison, Fixture, Tensors, compare
from foveal.mining import MiningConfig, MiningResult, MiningState, RegionMiner
from foveal.mining.erasing import dilate
from foveal.mining.functional import (
    class_activation,
    erase,
    feature_mask,
    iou_by_object_size,
    spearman,
)

EXACT = 1e-9  # float64; masks, steps and reasons are whole numbers and must be equal
_CONFLICTS = ("score", "smaller", "ignore")


def _settings(args: Args) -> MiningConfig:
    known = {f.name for f in fields(MiningConfig)}
    return MiningConfig(**{name: value for name, value in args.items() if name in known})


def _mine(
    miner: RegionMiner,
    state: MiningState,
    look: Callable[[MiningState], tuple[torch.Tensor, torch.Tensor] | None],
) -> tuple[MiningResult, Tensors]:
    """Mine step by step, and keep the state after each."""
    masks, active = [state.masks[:0]], [state.active[:0]]
    while state.active.any() and state.step < miner.config.max_steps:
        miner.step(state, look(state))
        masks.append(state.masks.clone())
        active.append(state.active.clone())
    history = {"mask_history": torch.stack(masks[1:]), "active_history": torch.stack(active[1:])}
    return miner.finish(state), history


def _outputs(result: MiningResult, history: Tensors) -> Tensors:
    return {
        **history,
        "pairs": result.pairs,
        "mask": result.masks,
        "score": result.scores,
        "step_map": result.step_map,
        "steps": result.steps,
        "reason": result.reason,
        "modulator": result.modulator,
        "forwards": result.forwards,
    }


def _label_maps(fixture: Fixture, result: MiningResult) -> Tensors:
    found = {f"label_{rule}": result.to_label_map(rule) for rule in _CONFLICTS}
    if "input/saliency" in fixture.tensors:
        saliency = fixture.take("input/saliency")
        threshold = fixture.args.get("saliency_threshold", 0.5)
        for rule in _CONFLICTS:
            labels = result.to_label_map(rule, saliency, threshold)
            found[f"label_{rule}_saliency"] = labels
    return found


def _compare_all(fixture: Fixture, ours: Tensors) -> Iterator[Comparison]:
    """Compare what the file stores; a stored tensor that nobody computes has no counterpart."""
    for name, stored in fixture.under("output/").items():
        found = ours.get(name)
        if found is None or found.shape != stored.shape:
            yield Comparison(f"output/{name}", float("inf"), 0.0)
        elif not stored.is_floating_point():
            yield compare(f"output/{name}", found.to(stored.dtype), stored, 0.0)
        else:  # nan where there is nothing to compare, in both
            unknown = stored.isnan()
            if not torch.equal(found.isnan(), unknown):
                yield Comparison(f"output/{name}", float("inf"), EXACT)
            else:
                found, stored = (values.masked_fill(unknown, 0) for values in (found, stored))
                yield compare(f"output/{name}", found, stored, EXACT)


def _sequence(fixture: Fixture) -> Iterator[Comparison]:
    """Replay steps whose activations and probabilities are given."""
    config = _settings(fixture.args)
    activations, probability = (
        fixture.take(f"input/{n}") for n in ("activations", "modulator_prob")
    )
    labels = fixture.take("input/labels")

    def look(state: MiningState) -> tuple[torch.Tensor, torch.Tensor]:
        images, classes = state.pairs[state.active].unbind(1)
        logits = probability[state.step].logit()
        return logits[images, classes], activations[state.step][images, classes]

    miner = RegionMiner(lambda x: (x, x), config)
    blank = activations.new_zeros((len(labels), 1, *activations.shape[-2:]))
    result, history = _mine(miner, miner.start(blank, labels), look)
    yield from _compare_all(fixture, {**_outputs(result, history), **_label_maps(fixture, result)})


def _closed_loop(fixture: Fixture) -> Iterator[Comparison]:
    """Replay the whole loop with a linear model."""
    images, labels = fixture.take("input/images"), fixture.take("input/labels")
    weight, bias, fill = (fixture.take(f"input/{name}") for name in ("weight", "bias", "fill"))
    truth = fixture.take("input/ground_truth")

    def model(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cams = class_activation(pictures, weight, relu=False, normalize=None)
        return bias + pictures[0, 0].numel() / 10 * cams.mean((2, 3)), cams

    miner = RegionMiner(model, _settings(fixture.args), fill=fill)
    result, history = _mine(miner, miner.start(images, labels), lambda state: None)
    whole = miner.mine(images, labels)
    for name, one, other in (
        ("mine, masks", whole.masks, result.masks),
        ("mine, scores", whole.scores, result.scores),
    ):
        yield compare(name, one.double(), other.double(), 0.0)
    owners, classes = result.pairs.unbind(1)
    objects = iou_by_object_size(result.masks, truth[owners] == classes[:, None, None] + 1)
    yield from _compare_all(
        fixture,
        {
            **_outputs(result, history),
            **_label_maps(fixture, result),
            "erased_after_last": erase(images[owners], result.masks, fill, miner.config.dilation),
            "pair_iou": objects.iou,
            "pair_area": objects.area,
        },
    )


def _cam_and_erase(fixture: Fixture) -> Iterator[Comparison]:
    """Replay activations, dilation, and erasing in pictures and in features."""
    features, weight = fixture.take("input/features"), fixture.take("input/weight")
    images, mask, fill = (fixture.take(f"input/{name}") for name in ("images", "mask", "fill"))
    dilation = fixture.args.get("dilation", 0)
    size = tuple(fixture.args.get("size", images.shape[2:]))
    dilated = dilate(mask, dilation)
    cells = feature_mask(dilated, tuple(features.shape[2:]))
    erased = features.masked_fill(cells[:, None], 0)
    plain = {"relu": False, "normalize": None}
    ours = {
        "cam": class_activation(features, weight, **plain),
        "cam_minmax": class_activation(features, weight, relu=False, normalize="minmax"),
        "cam_relu_max": class_activation(features, weight),
        "cam_up_relu_max": class_activation(features, weight, size=size),
        "mask_dilated": dilated,
        "erased": erase(images, mask, fill, dilation),
        "feature_mask": cells,
        "features_erased": erased,
        "logits_after_feature_erase": class_activation(erased, weight, **plain).mean((2, 3)),
    }
    yield from _compare_all(fixture, ours)


def _metrics(fixture: Fixture) -> Iterator[Comparison]:
    """Replay intersection over union by size, and the correlation of steps and areas."""
    mask, truth, steps = (fixture.take(f"input/{name}") for name in ("mask", "truth", "steps"))
    found = iou_by_object_size(mask, truth)
    ours = {
        "iou": found.iou,
        "area": found.area,
        "tertile_edges": torch.tensor(found.edges, dtype=torch.float64),
        "iou_small_medium_large": torch.tensor(found.means, dtype=torch.float64),
        "mean_iou_valid": torch.tensor([found.mean], dtype=torch.float64),
        "spearman_steps_area": torch.tensor([spearman(steps, found.area)], dtype=torch.float64),
    }
    yield from _compare_all(fixture, ours)


ADAPTERS: dict[str, Adapter] = {
    "sequence": _sequence,
    "closed_loop": _closed_loop,
    "cam_and_erase": _cam_and_erase,
    "metrics": _metrics,
}
