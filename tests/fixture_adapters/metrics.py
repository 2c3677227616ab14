"""Replays the scores of saliency maps and the matching of boundaries."""

from collections.abc import Iterator

import numpy as np
import torch

from fixture_adapters.core import Adapter, Comparison, Fixture, compare
from foveal.metrics import SaliencyScores, match_boundaries, score_saliency

SALIENCY = 1e-9  # of the specification of these files; what adds 2e-16 to denominators needs it


def _saliency(fixture: Fixture) -> Iterator[Comparison]:
    """Replay scores of saliency maps, of each picture and of all; curves are stored from 255 on."""
    normalize = fixture.args.get("normalize", True)
    pictures = zip(fixture.take("input/pred"), fixture.take("input/gt"), strict=True)
    scores, found = SaliencyScores(min_max=normalize), []
    for index, (prediction, truth) in enumerate(pictures):
        found.append(score_saliency(prediction, truth, min_max=normalize))
        scores.update(torch.tensor(index), prediction, truth)
    total = scores.compute()
    ours = {
        "mae": [picture.mae for picture in found],
        "sm": [picture.s_measure for picture in found],
        "wfm": [picture.weighted_f for picture in found],
        "fm_adp": [picture.adaptive_f for picture in found],
        "em_adp": [picture.adaptive_e for picture in found],
        "precision": [picture.curves.precision[::-1] for picture in found],
        "recall": [picture.curves.recall[::-1] for picture in found],
        "fm_curve": [picture.curves.f[::-1] for picture in found],
        "em_curve": [picture.curves.e[::-1] for picture in found],
        "dataset_max_f_from_mean_pr": [total["max_f"]],
        "dataset_max_f_mean_of_image_curves": [total["max_f_of_mean_curve"]],
        "dataset_mean_of_image_max_f": [total["mean_of_max_f"]],
        "dataset_max_em": [total["max_e"]],
        "dataset_mean_em": [total["e_measure"]],
    }
    for name, stored in fixture.under("output/").items():
        values = torch.from_numpy(np.array(ours[name])) if name in ours else None
        yield compare(f"output/{name}", values, stored, SALIENCY)


def _boundary_matching(fixture: Fixture) -> Iterator[Comparison]:
    """Replay the matching of boundary maps with several annotators.

    Matched true pixels are as many as can be, exactly, and no fewer than the benchmark's solver
    found. Which predicted pixels are matched is open where several choices are equally good, so
    their number over all annotators must lie in the range of its runs.
    """
    predictions, truths = (fixture.take(f"input/{name}").bool() for name in ("pred", "gt"))
    distance = fixture.args["max_dist"] * float(np.hypot(*predictions.shape[1:]))
    matched = [
        [match_boundaries(prediction.numpy(), one.numpy(), distance) for one in truth]
        for prediction, truth in zip(predictions, truths, strict=True)
    ]
    found = torch.tensor([[int(of_truth.sum()) for _, of_truth in row] for row in matched]).int()
    right = torch.tensor(
        [int(np.logical_or.reduce([p for p, _ in row]).sum()) for row in matched]
    ).int()
    yield compare("output/max_cardinality", found, fixture.take("output/max_cardinality"), 0)
    for name, ours, sign in (
        ("output/reference_recall_matches_min", found, 1),
        ("output/reference_recall_matches_max", found, 1),
        ("output/reference_precision_matches_min", right, 1),
        ("output/reference_precision_matches_max", right, -1),
    ):
        stored = fixture.take(name)
        beyond = (sign * (stored - ours)).clamp(min=0)  # pixels below the least or above the most
        yield compare(name, beyond, torch.zeros_like(stored), 0)


ADAPTERS: dict[str, Adapter] = {
    "correspondPixels": _boundary_matching,
    "Fmeasure(beta=0.3), MAE, Smeasure(alpha=0.5), Emeasure, WeightedFmeasure(beta=1)": _saliency,
}
