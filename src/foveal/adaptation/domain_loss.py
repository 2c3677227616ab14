"""The adversarial loss of domains, conditioned on predictions."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from foveal.adaptation.conditioning import (
    multilinear_map,
    norm_matched,
    randomized_multilinear_map,
)
from foveal.adaptation.entropy import Normalization, check_normalization, entropy_weights
from foveal.adaptation.gradient_reversal import grad_reverse
from foveal.adaptation.items import check_aligned
from foveal.adaptation.precision import wide
from foveal.adaptation.processes import Group, mean_over_processes
from foveal.adaptation.prototypes import prototypical_representation
from foveal.models.domain_discriminator import DomainDiscriminator
from foveal.names import unknown

Conditioning = Literal["none", "concat", "noun", "pronoun", "multilinear", "randomized"]


class DomainOutcome(NamedTuple):
    """What a domain discriminator was given and said.

    Attributes:
        loss: [], with gradient.
        scale: of the condition, []; 1 where it is not scaled.
        accuracy: share of the items whose domain was told, [], in [0, 1].
        logits: of being of the source, source first, [n] or [B, H, W].
        inputs: [n, width] or [B, width, H, W].
        condition: what is beside the features, before it is scaled: [n, ...]; empty without one.
    """

    loss: Tensor
    scale: Tensor
    accuracy: Tensor
    logits: Tensor
    inputs: Tensor
    condition: Tensor


class ConditionalDomainLoss(nn.Module):
    """Cross entropy of a discriminator of domains, whose gradient the features get reversed.

    The discriminator sees, of each item with features f and probabilities p of which no gradient
    is taken:

    | ``conditioning`` | input | width | after |
    |---|---|---|---|
    | ``none`` | f | D | DANN, arXiv:1505.07818 |
    | ``concat`` | f, p | D + C | plain concatenation |
    | ``noun`` | f, s p | D + C | NOUN, arXiv:2003.13274v4 |
    | ``pronoun`` | f, s p M | 2 D | PRONOUN, the same; M are the prototypes |
    | ``multilinear`` | all products of p and f | C D | CDAN, arXiv:1705.10667 |
    | ``randomized`` | (f R_f) * (p R_g) / sqrt(Q) | Q | CDAN, its randomised form |

    s is ``factor`` times the ratio of norms, of :func:`~foveal.adaptation.functional.norm_matched`.

    Differs from the official code of NOUN: logits instead of a sigmoid, no middle layer (which
    that code never calls), domains of any size; else nothing, see the fixtures.

    Args:
        feature_dim: D.
        num_classes: C.
        conditioning: as above.
        entropy: weigh items by how sure their predictions are (+E). The weights' gradient reaches
            the logits, reversed.
        normalize: of these weights, ``domain`` or ``joint``, as in
            :func:`~foveal.adaptation.functional.entropy_weights`.
        factor: a, of ``noun`` and ``pronoun``; the official Office-Home script has 3.
        hidden: width of the discriminator.
        random_dim: Q, of ``randomized`` alone.
        dense: items are the positions of maps.
        process_group: of several processes; None: all.

    Attributes:
        r_f: [D, Q], of ``randomized`` alone.
        r_g: [C, Q].

    Shape:
        features [n, D] and logits [n, C], or [B, D, H, W] and [B, C, H, W]; output [].

    Raises:
        ValueError: an unknown word or a number out of range.
    """

    r_f: Tensor
    r_g: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        conditioning: Conditioning = "noun",
        *,
        entropy: bool = False,
        normalize: Normalization = "domain",
        factor: float = 1.0,
        hidden: int = 1024,
        random_dim: int = 1024,
        dense: bool = False,
        process_group: Group = None,
    ) -> None:
        super().__init__()
        if conditioning not in get_args(Conditioning):
            raise ValueError(unknown("conditioning", str(conditioning), get_args(Conditioning)))
        check_normalization(normalize)
        widths = {
            "none": feature_dim,
            "concat": feature_dim + num_classes,
            "noun": feature_dim + num_classes,
            "pronoun": 2 * feature_dim,
            "multilinear": feature_dim * num_classes,
            "randomized": random_dim,
        }
        self.feature_dim, self.num_classes, self.factor = feature_dim, num_classes, factor
        self.conditioning, self.entropy, self.normalize = conditioning, entropy, normalize
        self.dense, self.across = dense, partial(mean_over_processes, group=process_group)
        self.discriminator = DomainDiscriminator(widths[conditioning], hidden, dense=dense)
        if conditioning == "randomized":
            self.register_buffer("r_f", torch.randn(feature_dim, random_dim))
            self.register_buffer("r_g", torch.randn(num_classes, random_dim))

    def forward(
        self,
        features_source: Tensor,
        logits_source: Tensor,
        features_target: Tensor,
        logits_target: Tensor,
        coeff: float | Tensor,
        prototypes: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the loss.

        Args:
            features_source: [n_s, D] or [B_s, D, H, W].
            logits_source: [n_s, C] or [B_s, C, H, W].
            features_target: [n_t, D] or [B_t, D, H, W]; n_t need not be n_s.
            logits_target: [n_t, C] or [B_t, C, H, W].
            coeff: of the reversal, of :func:`~foveal.adaptation.functional.grl_coefficient`.
            prototypes: [C, D], of ``pronoun`` alone.
            mask: which of them are there, bool [C]; None: all.

        Raises:
            ValueError: shapes that do not fit; prototypes that are missing.
        """
        return self.outcome(
            features_source,
            logits_source,
            features_target,
            logits_target,
            coeff,
            prototypes,
            mask,
        ).loss

    def outcome(
        self,
        features_source: Tensor,
        logits_source: Tensor,
        features_target: Tensor,
        logits_target: Tensor,
        coeff: float | Tensor,
        prototypes: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> DomainOutcome:
        """Return the loss and all that it was made of; arguments as of :meth:`forward`."""
        self._check("source", features_source, logits_source)
        self._check("target", features_target, logits_target)
        n_source = len(features_source)
        features = torch.cat([features_source, features_target])
        logits = torch.cat([logits_source, logits_target])
        inputs, scale, condition = self._inputs(features, logits, prototypes, mask)
        weight = None
        if self.entropy:
            # The entropy has a reversal of its own.
            probs = grad_reverse(wide(logits).softmax(1), coeff)
            weight = entropy_weights(probs, n_source, self.normalize, self.across)
            if self.normalize == "joint":  # these are of a mean, all others of a sum
                weight = weight / self.across(weight.new_full((), weight.numel())).clamp_min(1)
        told = tell_domains(self.discriminator, inputs, n_source, coeff, weight, self.across)
        return DomainOutcome(told.loss, scale, told.accuracy, told.logits, inputs, condition)

    def _check(self, domain: str, features: Tensor, logits: Tensor) -> None:
        names = (f"the {domain}'s features", f"the {domain}'s logits")
        widths = (self.feature_dim, self.num_classes)
        form = "[B, {}, H, W]" if self.dense else "[n, {}]"
        for name, values, width in zip(names, (features, logits), widths, strict=True):
            if values.ndim != (4 if self.dense else 2) or values.shape[1] != width:
                raise ValueError(f"{name} must be {form.format(width)}, not {list(values.shape)}")
        check_aligned(features, logits, names)

    def _inputs(
        self, features: Tensor, logits: Tensor, prototypes: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the discriminator sees, the scale, and the condition."""
        features = wide(features)
        one = torch.ones((), dtype=features.dtype, device=features.device)
        probs = wide(logits.detach()).softmax(1)
        if self.conditioning == "none":
            return features, one, probs[:, :0]
        if self.conditioning == "concat":
            return torch.cat([features, probs], 1), one, probs
        if self.conditioning == "multilinear":
            return multilinear_map(features, probs), one, probs
        if self.conditioning == "randomized":
            return randomized_multilinear_map(features, probs, self.r_f, self.r_g), one, probs
        condition = probs
        if self.conditioning == "pronoun":
            if prototypes is None:
                raise ValueError("the conditioning 'pronoun' needs prototypes [C, D]")
            condition = prototypical_representation(
                logits.detach(), prototypes.detach(), is_logits=True, mask=mask
            )
        scaled, scale = norm_matched(condition, features, self.factor, across=self.across)
        return torch.cat([features, scaled], 1), scale, condition

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"{self.feature_dim}, {self.num_classes}, {self.conditioning!r}, "
            f"entropy={self.entropy}, factor={self.factor}"
        )


class Told(NamedTuple):
    """Loss [], accuracy [] and logits of a discriminator."""

    loss: Tensor
    accuracy: Tensor
    logits: Tensor


def tell_domains(
    discriminator: nn.Module,
    inputs: Tensor,
    n_source: int,
    coeff: float | Tensor,
    weight: Tensor | None = None,
    across: Callable[[Tensor], Tensor] = Tensor.detach,
) -> Told:
    """Return how well domains are told; ``inputs`` get the gradient reversed.

    Args:
        discriminator: gives logits.
        inputs: source first.
        n_source: how many of the first dimension are of the source.
        coeff: of the reversal.
        weight: of items, for a sum of cross entropies; None: their mean.
        across: makes counts those of all processes.
    """
    logits: Tensor = discriminator(grad_reverse(inputs, coeff))
    wide_logits = wide(logits)
    is_source = torch.zeros_like(wide_logits)
    is_source[:n_source] = 1
    losses = binary_cross_entropy_with_logits(wide_logits, is_source, reduction="none")
    count = across(losses.new_full((), losses.numel())).clamp_min(1)
    loss = losses.sum() / count if weight is None else (weight * losses).sum()
    right = ((wide_logits.detach() > 0) == (is_source > 0)).to(losses).sum()
    return Told(loss, right / count, logits)
