"""Sizes and accuracies as the papers and official repositories state them.

Only figures read in a source are here, none that were recalled.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of a published table.

    Attributes:
        parameters: millions.
        multiply_adds: millions, at 224 by 224; None where the source has none.
        top1: ImageNet-1k top-1 accuracy, fraction in [0, 1].
        source: where it stands.
    """

    parameters: float
    multiply_adds: float | None
    top1: float
    source: str


_COORDINATE = "README of the official code of arXiv:2103.02907"
_TRIPLET = "README of the official code of arXiv:2010.03045"
_SANDGLASS = "arXiv:2007.02269 and its code's README"
_DEEPVIT = "README of the official code of arXiv:2103.11886"

PUBLISHED = {
    "mobilenetv2_100": Published(3.5, 300, 0.723, _COORDINATE),
    "mobilenetv2_100_se": Published(3.89, 300, 0.735, _COORDINATE),
    "mobilenetv2_100_cbam": Published(3.89, 300, 0.736, _COORDINATE),
    "mobilenetv2_100_coordinate": Published(3.95, 310, 0.743, _COORDINATE),
    "mobilenetv2_100_triplet": Published(3.51, 327, 0.7199, _TRIPLET),
    "resnet18_triplet": Published(11.69, 1825, 0.7109, _TRIPLET),  # kernels of 7 in both
    "resnet50_triplet": Published(25.56, 4169, 0.7748, _TRIPLET),
    "mobilenext_035": Published(1.8, 80, 0.647, _SANDGLASS),
    "mobilenext_050": Published(2.1, 110, 0.677, _SANDGLASS),
    "mobilenext_075": Published(2.5, 210, 0.72, _SANDGLASS),
    "mobilenext_100": Published(3.5, 300, 0.7402, _SANDGLASS),
    "mobilenext_140": Published(6.1, 590, 0.761, _SANDGLASS),
    "mobilenext_100_se": Published(3.89, 300, 0.747, _COORDINATE),
    "mobilenext_100_coordinate": Published(4.09, 330, 0.752, _COORDINATE),
    # The accuracy is of networks without BatchNorm of the maps, which the code does not build.
    "deepvit_16_patch16_224": Published(24.5, None, 0.7910, _DEEPVIT),
    "deepvit_24_patch16_224": Published(36.3, None, 0.7999, _DEEPVIT),
    "deepvit_32_patch16_224": Published(48.1, None, 0.8090, _DEEPVIT),
    "deepvit_large_patch16_224": Published(55, None, 0.831, "arXiv:2103.11886, DeiT's recipe"),
}
