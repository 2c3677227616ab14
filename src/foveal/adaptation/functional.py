"""The pure functions of domain adaptation, all in one place."""

from foveal.adaptation.batch_nuclear_norm import bnm_loss
from foveal.adaptation.classifier_discrepancy import mcd_discrepancy
from foveal.adaptation.conditioning import (
    multilinear_map,
    norm_matched,
    randomized_multilinear_map,
)
from foveal.adaptation.entropy import class_histogram_entropy, entropy, entropy_weights
from foveal.adaptation.gradient_reversal import grad_reverse, grl_coefficient
from foveal.adaptation.intra_class_variance import intra_class_variance
from foveal.adaptation.minimum_class_confusion import mcc_loss
from foveal.adaptation.prototypes import (
    class_means,
    ema_update,
    prototype_spread,
    prototypical_representation,
)

__all__ = [
    "bnm_loss",
    "class_histogram_entropy",
    "class_means",
    "ema_update",
    "entropy",
    "entropy_weights",
    "grad_reverse",
    "grl_coefficient",
    "intra_class_variance",
    "mcc_loss",
    "mcd_discrepancy",
    "multilinear_map",
    "norm_matched",
    "prototype_spread",
    "prototypical_representation",
    "randomized_multilinear_map",
]
