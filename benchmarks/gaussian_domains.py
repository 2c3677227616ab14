"""What conditioning and prototypes do for domain adaptation: Gaussian classes, seen distorted.

    python benchmarks/gaussian_domains.py --out gaussian_domains.jsonl
    python benchmarks/gaussian_domains.py --show gaussian_domains.jsonl

Ten classes are normal distributions in ten dimensions. The target's are turned by 40 degrees in
five planes and shifted; both domains are seen through the same random tanh layer in 32 dimensions.
A small network learns from labelled items of the source and unlabelled ones of the target; what is
scored is its accuracy on the target at the last step. With ``--label_shift`` the target's last
class is ten times as rare as its first. Each method and seed is a line of JSON in the file and is
not repeated if it is there.
"""

import argparse
import hashlib
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from foveal.adaptation import ConditionalDomainLoss, PandaLoss
from foveal.adaptation.functional import bnm_loss, grl_coefficient, mcc_loss

SEEDS = [100, 101, 102, 103, 104]  # the experiment was made with others
CLASSES, LATENT, SEEN, FEATURES = 10, 10, 32, 64
MEAN_NORM, NOISE, DEGREES, SHIFT = 3.0, 0.9, 40.0, 0.6 * math.sqrt(10) / 2
ITEMS, BATCH, STEPS = 1500, 64, 400
# Differences that are shown: (name, minus name, what is asked of it).
DIFFERENCES = (
    ("DANN", "source only", "mean above 0"),
    ("concat", "DANN", ""),
    ("NOUN", "concat", "interval above 0"),
    ("NOUN+E", "NOUN", ""),
    ("PRONOUN", "DANN", ""),
    ("PRONOUN", "NOUN", ""),
    ("PRONOUN + variance", "PRONOUN", ""),
    ("PANDA", "PANDA without variance", ""),
    ("PANDA", "PRONOUN + variance", ""),
    ("PANDA", "DANN", "mean above 0"),
    ("PANDA", "PRONOUN", ""),
    ("variance alone", "source only", ""),
    ("CDAN", "NOUN", ""),
    ("MCC", "source only", ""),
    ("BNM", "source only", ""),
)


class Domain(NamedTuple):
    """Items [N, 32] and labels [N]."""

    x: Tensor
    y: Tensor


class Batch(NamedTuple):
    """What a method is given beside the cross entropy of the source."""

    f_s: Tensor
    z_s: Tensor
    y_s: Tensor
    f_t: Tensor
    z_t: Tensor
    coeff: float


Objective = Callable[[Batch], Tensor]


def draw(seed: int, label_shift: bool) -> tuple[Domain, Domain]:
    """Return both domains of a seed."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    means = MEAN_NORM * nn.functional.normalize(normal(CLASSES, LATENT), dim=1)
    seen_as = normal(LATENT, SEEN) / math.sqrt(LATENT)
    basis = torch.linalg.qr(normal(LATENT, LATENT)).Q
    cos, sin = math.cos(math.radians(DEGREES)), math.sin(math.radians(DEGREES))
    turn = torch.block_diag(*[torch.tensor([[cos, -sin], [sin, cos]])] * (LATENT // 2))
    rotation = basis @ turn @ basis.T
    shift = SHIFT * nn.functional.normalize(normal(LATENT), dim=0)
    frequency = torch.logspace(0, -1 if label_shift else 0, CLASSES)
    domains = []
    for weights in (torch.ones(CLASSES), frequency):
        y = torch.multinomial(weights, ITEMS, replacement=True, generator=generator)
        latent = means[y] + NOISE * normal(ITEMS, LATENT)
        if domains:
            latent = latent @ rotation.T + shift
        domains.append(Domain((latent @ seen_as).tanh(), y))
    return domains[0], domains[1]


def conditional(conditioning: Any, entropy: bool = False) -> Callable[[], tuple[Any, Objective]]:
    """Return a maker of a conditional domain loss and the objective that it is."""

    def make() -> tuple[Any, Objective]:
        loss = ConditionalDomainLoss(FEATURES, CLASSES, conditioning, entropy=entropy, hidden=128)
        return loss, lambda b: loss(b.f_s, b.z_s, b.f_t, b.z_t, b.coeff)

    return make


def panda(
    prototype_weight: float, variance_weight: float, alone: bool = False
) -> Callable[[], tuple[Any, Objective]]:
    """Return a maker of PANDA's loss with these weights; alone: of the variance and no other."""

    def make() -> tuple[Any, Objective]:
        loss = PandaLoss(
            FEATURES,
            CLASSES,
            prototype_weight=prototype_weight,
            variance_weight=variance_weight,
            hidden=128,
        )

        def objective(b: Batch) -> Tensor:
            found = loss(b.f_s, b.z_s, b.y_s, b.f_t, b.z_t, b.coeff)
            return variance_weight * b.coeff * found["variance"] if alone else found["total"]

        return loss, objective

    return make


def without_module(objective: Objective) -> Callable[[], tuple[Any, Objective]]:
    """Return a maker of an objective that has no weights of its own."""
    return lambda: (nn.Identity(), objective)


METHODS: dict[str, Callable[[], tuple[Any, Objective]]] = {
    "source only": without_module(lambda b: b.z_t.sum() * 0),
    "DANN": conditional("none"),
    "concat": conditional("concat"),
    "NOUN": conditional("noun"),
    "NOUN+E": conditional("noun", entropy=True),
    "PRONOUN": panda(0.0, 0.0),
    "PRONOUN + variance": panda(0.0, 0.1),
    "PANDA": panda(0.5, 0.1),
    "PANDA without variance": panda(0.5, 0.0),
    "variance alone": panda(0.0, 0.1, alone=True),
    "CDAN": conditional("multilinear"),
    "CDAN+E": conditional("multilinear", entropy=True),
    "MCC": without_module(lambda b: mcc_loss(b.z_t)),
    "BNM": without_module(lambda b: bnm_loss(b.z_t.softmax(1))),
}


def measure(method: str, seed: int, steps: int, label_shift: bool) -> dict[str, float]:
    """Return the accuracies after a training, in [0, 1]."""
    source, target = draw(seed, label_shift)
    torch.manual_seed(seed)  # the same network and batches for all methods
    trunk = nn.Sequential(
        nn.Linear(SEEN, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, FEATURES)
    )
    head = nn.Linear(FEATURES, CLASSES)
    order = torch.Generator().manual_seed(seed)
    loss, objective = METHODS[method]()
    parameters = [*trunk.parameters(), *head.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.05, 0.9, weight_decay=1e-3, nesterov=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + 10 * step / steps) ** -0.75
        rows = [torch.randint(ITEMS, (BATCH,), generator=order) for _ in "st"]
        f_s, f_t = trunk(source.x[rows[0]]), trunk(target.x[rows[1]])  # BatchNorm sees each alone
        y_s = source.y[rows[0]]
        batch = Batch(f_s, head(f_s), y_s, f_t, head(f_t), grl_coefficient(step, steps))
        optimizer.zero_grad()
        (cross_entropy(batch.z_s, y_s) + objective(batch)).backward()
        optimizer.step()
    trunk.eval()
    with torch.no_grad():
        right = [(head(trunk(d.x)).argmax(1) == d.y).double().mean() for d in (source, target)]
    return {"source_accuracy": float(right[0]), "target_accuracy": float(right[1])}


def main(arguments: list[str] | None = None) -> int:
    """Run or show; the status is 1 if the experiment does not show what it should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="file of JSON lines to add to")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--label_shift", action="store_true", help="rare classes in the target")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a file")
    args = parser.parse_args(arguments)
    if args.show is None and args.out is None:
        parser.error("give --out FILE; or --show FILE")
    if args.out:
        torch.set_num_threads(args.threads)
        for seed in args.seeds:
            for method in args.methods:
                run(args.out, method, seed, args.steps, args.label_shift)
    lines = read(args.show or args.out)
    failures = []
    for shifted in (False, True):
        found = [line for line in lines if line["label_shift"] == shifted]
        if found:
            print("\nlabel shift\n" if shifted else "\nbalanced classes\n", show(found), sep="\n")
        failures += [] if shifted else misses(found)
    print("\n".join(["", *failures]) if failures else "\nall that is asked for is there")
    return 1 if failures else 0


def run(out: Path, method: str, seed: int, steps: int, label_shift: bool) -> None:
    """Add a line to the file unless it is there."""
    setting = {"method": method, "seed": seed, "steps": steps, "label_shift": label_shift}
    key = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]
    if any(line["key"] == key for line in read(out)):
        return
    start = time.process_time()
    line = {"key": key, **setting, **measure(method, seed, steps, label_shift)}
    line |= {"seconds": round(time.process_time() - start, 2)}
    line |= {"torch": torch.__version__, "machine": platform.machine()}
    print(f"{method}, seed {seed}: {line['target_accuracy']:.3f}", file=sys.stderr)
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def of(lines: list[dict[str, Any]], method: str) -> dict[int, float]:
    """Return the target accuracy of a method by seed."""
    return {line["seed"]: line["target_accuracy"] for line in lines if line["method"] == method}


def difference(lines: list[dict[str, Any]], more: str, less: str) -> list[float]:
    """Return the differences of two methods, of each seed that both have."""
    first, second = of(lines, more), of(lines, less)
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def half_interval(values: list[float]) -> float:
    """Return half of the 95 % t interval of a mean; infinite of one value."""
    if len(values) < 2:
        return math.inf
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * spread


def misses(lines: list[dict[str, Any]]) -> list[str]:
    """Say what falls short of what is asked for."""
    found = []
    for more, less, asked in DIFFERENCES:
        values = difference(lines, more, less)
        if not asked or not values:
            continue
        least = statistics.mean(values)
        least -= half_interval(values) if asked.startswith("interval") else 0
        if least <= 0:
            found.append(f"{more} minus {less}: {asked} is asked for, and it is {least:.3f}")
    return found


def show(lines: list[dict[str, Any]]) -> str:
    """Return both tables in Markdown: accuracies, and paired differences with intervals."""
    text = ["| method | target accuracy | source accuracy |", "|---|--:|--:|"]
    for method in METHODS:
        target = of(lines, method)
        if target:
            source = [line["source_accuracy"] for line in lines if line["method"] == method]
            means = [statistics.mean(values) for values in ([*target.values()], source)]
            text.append(f"| {method} | {means[0]:.3f} | {means[1]:.3f} |")
    text += ["", "| difference of target accuracies | mean ± half a 95 % interval |", "|---|--:|"]
    for more, less, _ in DIFFERENCES:
        values = difference(lines, more, less)
        if values:
            mean, half = statistics.mean(values), half_interval(values)
            text.append(f"| {more} - {less} | {mean:+.3f} ± {half:.3f} |")
    return "\n".join(text)


if __name__ == "__main__":
    raise SystemExit(main())
