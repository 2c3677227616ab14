"""How many of the built-in scenes one core draws in a second.

    python benchmarks/scenes.py

Time of the process, not of the clock, so that other work on the machine counts little. Every scene
is drawn once; reading the photographs, once in a process, is left out.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from foveal.data.scenes import DOMAINS, Scene, Scenes

CHEAP = ("image", "present", "semantic", "instances", "boxes")
ALL = (*CHEAP, "saliency", "boundaries", "skeleton")


def rate(scenes: Scenes, count: int, labels: Sequence[str]) -> float:
    """Return scenes per second of processor time, with the picture and some labels of each."""

    def ask(scene: Scene) -> None:
        for name in labels:
            getattr(scene, name)

    ask(scenes[len(scenes) - 1])  # reads the photographs
    start = time.process_time()
    for index in range(count):
        ask(scenes[index])
    return count / (time.process_time() - start)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how quickly scenes are drawn.")
    parser.add_argument("--count", type=int, default=500, help="scenes of each measurement")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures, pixels")
    args = parser.parse_args(argv)
    print(f"scenes a second, one core, {args.size} by {args.size} pixels")
    print(f"{'domain':8s} {'masks, boxes':>14s} {'all labels':>14s}")
    for domain in DOMAINS:
        cheap = rate(Scenes("train", domain=domain, size=args.size), args.count, CHEAP)
        # another split: masks of photographs that were drawn before are kept
        every = rate(Scenes("test", domain=domain, size=args.size), args.count, ALL)
        print(f"{domain:8s} {cheap:14.0f} {every:14.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
