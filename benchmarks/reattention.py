"""What re-attention costs: time and memory beside timm's attention and the authors' formulation.

    python benchmarks/reattention.py

All candidates take turns in one process, round after round, so that whatever else the machine does
falls on all of them; ratios are taken within a round, to timm's attention without fused kernels,
and are medians over the rounds. Before anything is timed, re-attention is compared with the
authors' formulation in float64: outputs, gradients and statistics. Memory is what a forward pass
keeps for the backward pass beside the parameters, in units of one float32 map [B, H, N, N].
"""

import argparse
import statistics
from collections.abc import Callable

import timm.layers
import torch
from layers import kept_bytes, ratio, results_of, rounds, step
from torch import nn

from foveal.layers import ReAttention

HEADS = 12
# Pictures, tokens, width: DeepViT-S's at 224 and at 384 pixels, and small pictures.
CASES = ((8, 197, 384), (2, 577, 384), (32, 65, 192))
REFERENCE = "timm, not fused"
TIMES = 5  # in a round: memory that the candidate before gave back costs the first of them dearly


class AuthorsReAttention(nn.Module):
    """Re-attention as its authors' code computes it, every step a tensor of its own.

    Written from the description of that code; keys are those of foveal's layer.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.reatten_matrix = nn.Conv2d(num_heads, num_heads, 1)
        self.var_norm = nn.BatchNorm2d(num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attended tokens, [B, N, C]."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        maps = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3)
        maps = self.var_norm(self.reatten_matrix(maps))
        return self.proj((maps @ v).transpose(1, 2).reshape(batch, tokens, dim))


def candidates(dim: int, tokens: int) -> dict[str, nn.Module]:
    """Return what is compared; those of re-attention have the same weights."""
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {}
    for name, fused in ((REFERENCE, False), ("timm, fused", True)):
        attention = timm.layers.Attention(dim, HEADS, qkv_bias=True)
        attention.fused_attn = fused
        made[name] = attention
    authors = AuthorsReAttention(dim, HEADS)
    with torch.no_grad():
        for _ in range(50):  # statistics of maps as they are, not as they start
            authors(torch.randn(2, tokens, dim))
    made["authors' formulation"] = authors
    for name, save_memory in (("foveal", False), ("foveal, save_memory", True)):
        layer = ReAttention(dim, HEADS, qkv_bias=True, save_memory=save_memory)
        layer.load_state_dict({**authors.state_dict(), "tokens": torch.tensor(tokens)})
        made[name] = layer
    return made


def compare(dim: int, tokens: int) -> float:
    """Return the largest deviation from the authors' formulation in float64.

    Raises:
        SystemExit: it is more than rounding.
    """
    torch.manual_seed(1)
    authors = AuthorsReAttention(dim, HEADS).double()
    with torch.no_grad():
        for parameter in authors.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        authors.var_norm.running_mean.normal_(std=0.1)
        authors.var_norm.running_var.uniform_(0.01, 0.03)
    x = torch.randn(2, tokens, dim, dtype=torch.float64)
    outer = torch.randn_like(x)
    state = {key: value.clone() for key, value in authors.state_dict().items()}
    truth = results_of(authors, x, outer)
    worst = 0.0
    for save_memory in (False, True):
        layer = ReAttention(dim, HEADS, qkv_bias=True, save_memory=save_memory).double()
        layer.load_state_dict({**state, "tokens": torch.tensor(tokens)})
        own = results_of(layer, x, outer)
        for key, value in truth.items():
            if key == "the gradient of reatten_matrix.bias":  # it is zero but for rounding
                continue
            deviation = float((own[key] - value).abs().max() / value.abs().max())
            if not deviation < 1e-9:
                raise SystemExit(f"{key} deviates by {deviation:.1e} from the authors' formulation")
            worst = max(worst, deviation)
    return worst


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"largest deviation in float64: {compare(48, 19):.1e}\n")
    print(
        "| B x N x C | | evaluation, ms | times not fused | training, ms | times not fused | kept |"
    )
    print("|---|---|--:|--:|--:|--:|--:|")
    for batch, tokens, dim in CASES:
        made = {n: m.to(args.device) for n, m in candidates(dim, tokens).items()}
        x = torch.randn(batch, tokens, dim, device=args.device)
        seconds = {}
        for training in (False, True):
            steps = {
                name: repeated(step(module, x.clone(), training), args.device)
                for name, module in made.items()
            }
            seconds[training] = rounds(steps, args.rounds)
        one_map = 4 * batch * HEADS * tokens**2
        for name, module in made.items():
            cells = [f"{batch} x {tokens} x {dim}", name]
            for taken in seconds.values():
                cells.append(f"{1e3 * statistics.median(taken[name]) / TIMES:.1f}")
                cells.append(f"{ratio(taken[name], taken[REFERENCE]):.2f}")
            kept = kept_bytes(module.train(), x.clone().requires_grad_()) / one_map
            print("| " + " | ".join([*cells, f"{kept:.2f}"]) + " |", flush=True)
    return 0


def repeated(run: Callable[[], object], device: str) -> Callable[[], object]:
    """Return a step that runs some times, and ends when the device has done it."""

    def several() -> None:
        for _ in range(TIMES):
            run()
        if device != "cpu":
            torch.accelerator.synchronize()

    return several


if __name__ == "__main__":
    raise SystemExit(main())
