"""The network that tells a source item from a target item."""

from torch import Tensor, nn

from foveal.models.options import check_whole


class DomainDiscriminator(nn.Sequential):
    """Two layers that give the logit of an item being of the source.

    Linear, ReLU, Linear; of maps, 1x1 convolutions in place of the linear layers. New layers have
    Xavier-normal weights and no bias to begin with.

    Source: Hu et al. 2021 (NOUN), arXiv:2003.13274v4, and its official code, whose middle layer is
    never called and whose sigmoid is in the loss here.

    Args:
        in_features: width of an item.
        hidden: width between the layers.
        dense: whether items are the positions of maps.

    Shape:
        input [n, in_features], output [n]; dense: [B, in_features, H, W] to [B, H, W]. Logits.

    Raises:
        ValueError: a width below 1.
        TypeError: a width that is no whole number.
    """

    def __init__(self, in_features: int, hidden: int = 1024, *, dense: bool = False) -> None:
        for name, value in (("in_features", in_features), ("hidden", hidden)):
            check_whole(name, value)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        layers: list[nn.Linear | nn.Conv2d]
        if dense:
            layers = [nn.Conv2d(in_features, hidden, 1), nn.Conv2d(hidden, 1, 1)]
        else:
            layers = [nn.Linear(in_features, hidden), nn.Linear(hidden, 1)]
        super().__init__(layers[0], nn.ReLU(), layers[1])
        for layer in layers:
            xavier_start(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of items; 1 is the source."""
        # What was computed in float32 meets weights in half precision.
        logits: Tensor = super().forward(x.to(next(self.parameters()).dtype))  # type: ignore[no-untyped-call]
        return logits[:, 0]


def xavier_start(layer: nn.Linear | nn.Conv2d) -> None:
    """Give a layer Xavier-normal weights and a bias of 0."""
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
