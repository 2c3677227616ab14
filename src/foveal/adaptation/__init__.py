"""Unsupervised domain adaptation: prototypes, conditioned discriminators, PANDA, its neighbours.

After arXiv:2003.13274: versions 1 and 2 (PANDA), of which no code was found and all but the
abstract is reconstructed here, and version 4 (NOUN and PRONOUN), whose official code is followed.
"""

from foveal.adaptation.batch_sizes import check_batch_sizes
from foveal.adaptation.domain_loss import ConditionalDomainLoss, DomainOutcome
from foveal.adaptation.panda import PandaLoss
from foveal.adaptation.prototype_bank import PrototypeBank

__all__ = [
    "ConditionalDomainLoss",
    "DomainOutcome",
    "PandaLoss",
    "PrototypeBank",
    "check_batch_sizes",
]
