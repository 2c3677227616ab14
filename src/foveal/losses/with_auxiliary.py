"""One loss for a dense network's main head and for the auxiliary one that it has in training."""

import copy

from torch import Tensor, nn


class WithAuxiliary(nn.Module):
    r"""A loss of the main logits, and a share of the same loss of the auxiliary ones.

    .. math:: loss(logits, target) + \lambda\, loss(auxiliary, target)

    Each head has a copy of the loss of its own: what online label smoothing collects of one says
    nothing of the other. A batch that is ignored as a whole has loss 0 and gradient 0.

    Source: SPNet's official code, arXiv:2003.13328.

    Args:
        loss: loss(logits [B, K, H, W], target [B, H, W]) -> scalar.
        weight: the auxiliary loss's share, at least 0.
        ignore_index: label of the pixels that count for nothing.

    Attributes:
        main: the main head's loss.
        auxiliary: the auxiliary head's.

    Shape:
        outputs: logits [B, K, H, W], or a pair of them, main and auxiliary.
        target: int64 [B, H, W].
        output: a scalar.

    Raises:
        ValueError: the weight is below 0.

    Example:
        >>> import torch
        >>> loss = WithAuxiliary(nn.CrossEntropyLoss(ignore_index=255), weight=0.5)
        >>> even = torch.zeros(1, 2, 1, 1)
        >>> loss((even, even), torch.tensor([[[1]]]))
        tensor(1.0397)
        >>> loss(even, torch.tensor([[[255]]]))
        tensor(0.)
    """

    def __init__(self, loss: nn.Module, weight: float = 0.4, *, ignore_index: int = 255) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"the weight of the auxiliary loss must be at least 0, not {weight}")
        self.main, self.auxiliary = loss, copy.deepcopy(loss)
        self.weight, self.ignore_index = weight, ignore_index

    def forward(self, outputs: Tensor | tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """Return the loss of what a network in training returns."""
        if isinstance(outputs, Tensor):
            loss: Tensor = self.main(outputs, target)
        else:
            logits, auxiliary = outputs
            loss = self.main(logits, target) + self.weight * self.auxiliary(auxiliary, target)
        # torch's mean over no pixel is nan; its gradient is 0 already.
        return loss.where((target != self.ignore_index).any(), 0.0)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"weight={self.weight}"
