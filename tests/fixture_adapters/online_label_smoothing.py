"""Replays online label smoothing: epochs of the loss."""

import itertools
from collections.abc import Iterator

import torch

from fixture_adapters.core import Adapter, Comparison, Fixture, compare
from foveal.losses import OnlineLabelSmoothing


def _online_label_smoothing(fixture: Fixture) -> Iterator[Comparison]:
    """Replay the authors' epochs: losses, gradients, statistics and the matrix after each.

    Batches and epochs are found by counting. Tolerances are those of the specification of these
    files, relative to the largest value: 1e-6 for losses and matrices, 1e-5 for gradients, of the
    file's largest: where a network is sure of a whole batch, its gradients are rounding noise.
    """
    args = fixture.args
    if args.get("matrix_row", "target class") != "target class":
        raise ValueError(f"the rows of its matrix are {args['matrix_row']!r}, not target classes")
    loss = OnlineLabelSmoothing(
        args["num_classes"],
        hard_weight=args["hard_weight"],
        soft_weight=args["soft_weight"],
        freeze_at=args.get("freeze_row_when_max_at_least"),
    )
    start = fixture.take("state/loss_lams")
    gradients = [value for name, value in fixture.tensors.items() if name.startswith("grad/")]
    largest = max(value.abs().max().item() for value in gradients)
    if not torch.allclose(start, torch.full_like(start, args["initial_fill"]), rtol=1e-5, atol=0):
        raise ValueError("the stored start does not follow initial_fill")
    loss.soft_labels.copy_(start)
    for epoch in range(args["epochs"]):
        for batch in itertools.count():
            step = f"{epoch}_{batch}"
            if f"input/logits_{step}" not in fixture.tensors:
                break
            logits = fixture.take(f"input/logits_{step}").requires_grad_()
            value = loss(logits, fixture.take(f"input/target_{step}").flatten())
            value.backward()
            stored = fixture.take(f"output/loss_{step}")
            ours = value.detach().reshape(stored.shape)
            yield compare(f"output/loss_{step}", ours, stored, 1e-6)
            name = f"grad/logits_{step}"
            yield compare(name, logits.grad, fixture.take(name), 1e-5, largest)
        for name, ours in (("sum", loss.sum), ("count", loss.count)):
            stored = fixture.take(f"output/{name}_{epoch}")
            yield compare(f"output/{name}_{epoch}", ours.to(stored.dtype), stored, 1e-6)
        loss.next_epoch()
        name = f"output/matrix_{epoch}"
        yield compare(name, loss.soft_labels, fixture.take(name), 1e-6)


ADAPTERS: dict[str, Adapter] = {
    "Solver (cifar)": _online_label_smoothing,
    "Solver (fine-grained)": _online_label_smoothing,
}
