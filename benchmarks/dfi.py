"""What one pass for three tasks costs beside a pass for each.

    python benchmarks/dfi.py

DFI on its own ResNet-50 and on a small backbone: one task, three tasks from one pass of the
backbone, and three passes of one task each, which is what three networks cost. Candidates take
turns in one process, round after round, so that whatever else the machine does falls on all of
them; figures are medians over the rounds, ratios are taken within a round. Before anything is
timed, the maps of one pass are compared with those of three.
"""

import argparse
import statistics
from typing import Any

import torch
from layers import ratio, rounds
from torch import Tensor, nn

import foveal
from foveal.models import count

CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "DFI, 300 x 400": ((300, 400), {}),
    "on half-width MobileNetV2, 300 x 400": (
        (300, 400),
        {"backbone": "mobilenetv2", "backbone_args": {"width": 0.5}},
    ),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| network | tasks | ms | times one task | times as fast as three passes |")
    print("|---|---|--:|--:|--:|")
    for case, (size, arguments) in CASES.items():
        torch.manual_seed(0)
        network: Any = foveal.create_model("dfi", **arguments).eval()
        network.to(memory_format=torch.channels_last)
        x = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
        compare(network, x)
        steps = {
            "edge": lambda n=network, x=x: look(n, x, ["edge"]),
            "three, one pass": lambda n=network, x=x: look(n, x, n.tasks),
            "three passes": lambda n=network, x=x: [look(n, x, [task]) for task in n.tasks],
        }
        seconds = rounds(steps, args.rounds)
        for name, found in seconds.items():
            print(
                f"| {case} | {name} | {1e3 * statistics.median(found):.0f} "
                f"| {ratio(found, seconds['edge']):.2f} "
                f"| {ratio(seconds['three passes'], found):.2f} |",
                flush=True,
            )
        counts = count(network, (3, *size))
        print(f"| {case} | {counts.multiply_adds / 1e9:.2f} G multiply-adds for three | | | |")
    return 0


def look(network: nn.Module, x: Tensor, tasks: Any) -> dict[str, Tensor]:
    """Return the logits of tasks, without gradients."""
    with torch.inference_mode():
        y: dict[str, Tensor] = network(x, tasks)
    return y


def compare(network: Any, x: Tensor) -> None:
    """Hold the maps of one pass to those of three.

    Raises:
        SystemExit: they differ.
    """
    together = look(network, x, network.tasks)
    for task in network.tasks:
        alone = look(network, x, [task])[task]
        deviation = float((together[task] - alone).abs().max() / alone.abs().max())
        if not deviation < 1e-5:
            raise SystemExit(f"{task}: one pass deviates by {deviation:.1e}")


if __name__ == "__main__":
    raise SystemExit(main())
