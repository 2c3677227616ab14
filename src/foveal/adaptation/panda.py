"""PANDA's three objectives."""

import warnings
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from foveal.adaptation.conditioning import norm_matched
from foveal.adaptation.domain_loss import ConditionalDomainLoss, tell_domains
from foveal.adaptation.entropy import class_histogram_entropy
from foveal.adaptation.intra_class_variance import VarianceMode, intra_class_variance
from foveal.adaptation.items import labels_at, to_items
from foveal.adaptation.precision import wide
from foveal.adaptation.processes import Group, mean_over_processes
from foveal.adaptation.prototype_bank import PrototypeBank
from foveal.adaptation.prototypes import (
    check_of_items,
    one_hot,
    prototype_spread,
    prototypical_representation,
)
from foveal.models.domain_discriminator import DomainDiscriminator
from foveal.names import unknown

PrototypeSource = Literal["source", "target", "both", "both_confident"]
_CONFIDENT = 0.6
_LEAST_SPREAD = 0.1


class PandaLoss(nn.Module):
    """Adversarial alignment of features and of representations, and the target's variance.

    With f the features, p the probabilities, M the prototypes and r = p M:

    * ``feature``: a discriminator sees f, reversed, and r: the loss of PRONOUN.
    * ``prototype``: a second one sees r, reversed, and f. Its gradient reaches the logits.
    * ``variance``: mean ||f - r||^2 of the target over the mean ||f||^2 of the source.
    * ``total``: feature + prototype_weight prototype + coeff variance_weight variance, to which the
      cross entropy of the source is to be added. Early predictions are wrong, which is why the
      variance rises with the reversal.

    Source: the abstract of Hu et al. 2020, arXiv:2003.13274v2, fixes r and the three objectives.
    Forms, weights and all defaults are foveal's reconstruction, not the authors'.

    Args:
        feature_dim: D.
        num_classes: C.
        prototypes_from: ``source``: labelled items; ``target``: the target's items under their
            probabilities; ``both``; ``both_confident``: labelled items, and those of the target
            whose largest probability is at least ``confidence``, under that class.
        confidence: of ``both_confident``.
        momentum: of the prototypes.
        init: of the prototypes, ``first_seen`` or ``random``.
        factor: a, of the condition's norm.
        prototype_weight: of the second objective.
        variance_weight: of the third.
        variance_mode: its form, of :func:`~foveal.adaptation.functional.intra_class_variance`.
        hidden: width of the discriminators.
        dense: items are the positions of maps.
        ignore_index: the label that belongs to no class.
        process_group: of several processes; None: all.

    Raises:
        ValueError: an unknown word or a number out of range.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        prototypes_from: PrototypeSource = "source",
        confidence: float = _CONFIDENT,
        momentum: float = 0.5,
        init: Literal["first_seen", "random"] = "first_seen",
        factor: float = 1.0,
        prototype_weight: float = 0.5,
        variance_weight: float = 0.1,
        variance_mode: VarianceMode = "norm",
        hidden: int = 1024,
        dense: bool = False,
        ignore_index: int = -1,
        process_group: Group = None,
    ) -> None:
        super().__init__()
        if prototypes_from not in get_args(PrototypeSource):
            known = get_args(PrototypeSource)
            raise ValueError(unknown("source of prototypes", str(prototypes_from), known))
        if variance_mode not in get_args(VarianceMode):
            known = get_args(VarianceMode)
            raise ValueError(unknown("mode of the variance", str(variance_mode), known))
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence must lie in [0, 1], not {confidence}")
        self.prototypes_from, self.confidence, self.factor = prototypes_from, confidence, factor
        self.prototype_weight, self.variance_weight = prototype_weight, variance_weight
        self.variance_mode = variance_mode
        self.across = partial(mean_over_processes, group=process_group)
        self.bank = PrototypeBank(
            num_classes, feature_dim, momentum, init, ignore_index, process_group
        )
        self.feature_loss = ConditionalDomainLoss(
            feature_dim,
            num_classes,
            "pronoun",
            factor=factor,
            hidden=hidden,
            dense=dense,
            process_group=process_group,
        )
        self.prototype_discriminator = DomainDiscriminator(2 * feature_dim, hidden, dense=dense)
        self._warned = False

    def forward(
        self,
        features_source: Tensor,
        logits_source: Tensor,
        labels_source: Tensor,
        features_target: Tensor,
        logits_target: Tensor,
        coeff: float | Tensor,
    ) -> dict[str, Tensor]:
        """Update the prototypes, in training mode, and return the losses.

        Args:
            features_source: [n_s, D] or [B_s, D, h, w].
            logits_source: [n_s, C] or [B_s, C, h, w].
            labels_source: int64 [n_s], or [B_s, H, W] of any size.
            features_target: [n_t, D] or [B_t, D, h, w].
            logits_target: [n_t, C] or [B_t, C, h, w].
            coeff: of the reversal and of the variance, of
                :func:`~foveal.adaptation.functional.grl_coefficient`.

        Returns:
            ``feature``, ``prototype``, ``variance`` and ``total``, with gradient, all 0 as long as
            no class has been seen; and without, to be logged: ``scale`` of the condition,
            ``disc_acc`` and ``prototype_disc_acc`` in [0, 1], ``prototype_spread`` of
            :func:`~foveal.adaptation.functional.prototype_spread`, ``target_class_entropy`` of
            :func:`~foveal.adaptation.functional.class_histogram_entropy` and ``skipped``, 1 where
            no class has been seen.

        Warns:
            UserWarning: once, when two prototypes are about to be one.

        Raises:
            ValueError: shapes that do not fit, or a label that is no class.
        """
        if self.training:
            features, weights = self._items(
                features_source, labels_source, features_target, logits_target
            )
            self.bank.update(features, weights)
        prototypes, seen = self.bank.prototypes.clone(), self.bank.initialized.clone()
        told = self.feature_loss.outcome(
            features_source, logits_source, features_target, logits_target, coeff, prototypes, seen
        )
        features = torch.cat([features_source, features_target])
        logits = torch.cat([logits_source, logits_target])
        n_source = len(features_source)
        r = prototypical_representation(logits, prototypes, is_logits=True, mask=seen)
        condition, _ = norm_matched(features, r, self.factor, across=self.across)
        inputs = torch.cat([r, condition], 1)
        told_r = tell_domains(
            self.prototype_discriminator, inputs, n_source, coeff, None, self.across
        )
        variance = intra_class_variance(
            features_target,
            r[n_source:],
            self.variance_mode,
            features_source if self.variance_mode == "norm" else None,
            across=self.across,
        )
        losses = {"feature": told.loss, "prototype": told_r.loss, "variance": variance}
        losses = {name: loss.where(seen.any(), 0) for name, loss in losses.items()}
        total = losses["feature"] + self.prototype_weight * losses["prototype"]
        total = total + coeff * self.variance_weight * losses["variance"]
        spread = prototype_spread(prototypes, seen)
        self._warn(spread)
        return {
            **losses,
            "total": total,
            "scale": told.scale,
            "disc_acc": told.accuracy,
            "prototype_disc_acc": told_r.accuracy,
            "prototype_spread": spread,
            "target_class_entropy": class_histogram_entropy(logits_target.detach()),
            "skipped": 1 - seen.any().float(),
        }

    def _items(
        self,
        features_source: Tensor,
        labels_source: Tensor,
        features_target: Tensor,
        logits_target: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the features [N, D] that prototypes are means of, and their weights [N, C]."""
        classes, _ = self.bank.prototypes.shape
        found: list[tuple[Tensor, Tensor]] = []
        if self.prototypes_from != "target":
            labels = labels_at(labels_source, features_source)
            check_of_items(labels, features_source, classes)
            hot = one_hot(labels, classes, self.bank.ignore_index)
            found.append((features_source, hot))
        if self.prototypes_from != "source":
            probs = to_items(wide(logits_target), "logits").softmax(1)
            if self.prototypes_from == "both_confident":
                largest, guess = probs.max(1)
                guess = guess.where(largest >= self.confidence, self.bank.ignore_index)
                probs = one_hot(guess, classes, self.bank.ignore_index)
            found.append((features_target, probs))
        features = torch.cat([to_items(wide(values.detach()), "features") for values, _ in found])
        weights = torch.cat([values.detach().to(features) for _, values in found])
        # What counts for nothing may be anything, nan included.
        return features.where(weights.any(1, keepdim=True), 0), weights

    def _warn(self, spread: Tensor) -> None:
        if self._warned or not self.training or torch.compiler.is_compiling():
            return
        if spread < _LEAST_SPREAD:
            self._warned = True
            warnings.warn(
                f"two prototypes are {float(spread):.3f} of their mean norm apart, which is below "
                f"{_LEAST_SPREAD}: classes are collapsing; lower variance_weight",
                stacklevel=3,
            )
