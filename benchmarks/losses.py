"""What online label smoothing costs beside cross entropy, a training step and a loop over samples.

    python benchmarks/losses.py

Forward and backward pass of the loss alone, at B = 256 and K = 1000, and at B = 128 and K = 100.
Candidates take turns in one process, round after round, so that whatever else the machine does
falls on all of them; figures are medians over the rounds, ratios are taken within a round. Before
anything is timed, both forms of online label smoothing are compared in float64.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import foveal
from foveal.losses import OnlineLabelSmoothing

SHAPES = ((256, 1000), (128, 100))
RIGHT = 0.7  # share of the samples that are predicted right, as in the middle of a training


class OneByOne(OnlineLabelSmoothing):
    """The same equations as the authors' code is described to compute them.

    A loop over the samples with reads from the device for each; the prediction is the first of all
    classes sorted by their logits.
    """

    def forward(
        self, logits: Tensor, target: Tensor, statistics_logits: Tensor | None = None
    ) -> Tensor:
        """Return the loss and collect."""
        log_p = logits.log_softmax(1)
        order = logits.detach().argsort(1, descending=True)
        losses = []
        for sample, label, ranked in zip(log_p.unbind(0), target, order, strict=True):
            y = int(label.item())
            soft = (self.soft_labels[y] * sample).sum()
            losses.append(-self.hard_weight * sample[y] - self.soft_weight * soft)
            if int(ranked[0].item()) == y:
                self.sum[y] += sample.detach().exp()
                self.count[y] += 1
        self.seen += 1
        return torch.stack(losses).mean()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    compare()
    print("| B, K | cross entropy, ms | foveal, ms | one by one, ms | foveal is faster |")
    print("|---|--:|--:|--:|--:|")
    for size, classes in SHAPES:
        times = measure(candidates(size, classes, args.device), args.rounds, args.device)
        ratio = median_ratio(times["one by one"], times["foveal"])
        cells = " | ".join(f"{1e3 * statistics.median(found):.2f}" for found in times.values())
        print(f"| {size}, {classes} | {cells} | {ratio:.1f} times |")
    share = excess(args.rounds // 4 + 1, args.device)
    print(f"\nexcess over cross entropy, of a ResNet-18 step at B = 256, 32 pixels: {share:.2%}")
    return 0


def samples(size: int, classes: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return logits [B, K] and targets [B], of which the share ``RIGHT`` is predicted."""
    logits = torch.randn(size, classes)
    lucky = torch.rand(size) < RIGHT
    target = torch.where(lucky, logits.argmax(1), torch.randint(classes, (size,)))
    return logits.to(device).requires_grad_(), target.to(device)


def compare() -> None:
    """Check that both forms compute the same over two epochs."""
    both = [OnlineLabelSmoothing(7).double(), OneByOne(7).double()]
    for _ in range(2):
        logits, target = samples(40, 7)
        exact = logits.detach().double()
        torch.testing.assert_close(*(loss(exact, target) for loss in both), rtol=1e-12, atol=0)
        for loss in both:
            loss.next_epoch()
        torch.testing.assert_close(*(loss.soft_labels for loss in both), rtol=1e-12, atol=0)


def candidates(size: int, classes: int, device: str) -> dict[str, Callable[[], object]]:
    """Return a step of each loss on the same samples."""
    logits, target = samples(size, classes, device)
    losses = {
        "cross entropy": nn.CrossEntropyLoss(),
        "foveal": OnlineLabelSmoothing(classes).to(device),
        "one by one": OneByOne(classes).to(device),
    }

    def step(loss: nn.Module) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(logits, target), logits)

    return {name: step(loss) for name, loss in losses.items()}


def measure(
    steps: dict[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Return seconds of each candidate in each round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def median_ratio(times: list[float], reference: list[float]) -> float:
    """Return the median over rounds of one candidate's time by another's."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def excess(rounds: int, device: str) -> float:
    """Return what the loss takes beyond cross entropy, as a share of a whole training step."""
    network = foveal.create_model("resnet18", num_classes=1000).to(device)
    pictures = torch.randn(256, 3, 32, 32, device=device)
    _, target = samples(256, 1000, device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pictures), target).backward()
        optimizer.step()

    losses = candidates(256, 1000, device)
    times = measure(
        {"step": step, "cross entropy": losses["cross entropy"], "foveal": losses["foveal"]},
        rounds,
        device,
    )
    return statistics.median(
        (ours - plain) / whole
        for whole, plain, ours in zip(*(times[name] for name in times), strict=True)
    )


if __name__ == "__main__":
    raise SystemExit(main())
