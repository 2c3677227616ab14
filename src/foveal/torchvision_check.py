"""Imports torchvision before anything else does, and says in one sentence why that fails.

timm, Lightning and torchmetrics import torchvision too. Whatever imports one of them first imports
this module before it, so that a torch and a torchvision of different builds are told apart from a
defect. Standard library aside, nothing else is imported, and nothing is defined.
"""

from importlib.metadata import version

try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    if "torchvision::" not in str(error):  # as in "operator torchvision::nms does not exist"
        raise
    raise ImportError(
        f"torch {version('torch')} and torchvision {version('torchvision')} do not come from the "
        "same place: install both together, see PyTorch's installation page"
    ) from error
