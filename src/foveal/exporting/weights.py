"""The format ``safetensors``: the state dict, bit for bit."""

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from foveal.exporting.report import ExportMismatchError
from foveal.exporting.subject import Outputs, Subject, Written, inference_copy, named_outputs


def write(subject: Subject, path: Path) -> Written:
    """Write the network's state dict in its own number types, and load it into an emptied copy.

    Raises:
        ExportMismatchError: a tensor read back differs in a single bit.
    """
    state = subject.original.state_dict()
    # safetensors refuses tensors that share memory (tied weights): each is stored by itself.
    stored = {
        k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state.items()
    }
    path.write_bytes(save(stored, metadata=subject.metadata))

    reloaded = copy.deepcopy(subject.original)
    with torch.no_grad():
        for tensor in reloaded.state_dict().values():
            tensor.zero_()
    reloaded.load_state_dict(load_file(path), strict=True)
    for key, tensor in reloaded.state_dict().items():
        if not _same_bits(tensor.cpu(), stored[key]):
            raise ExportMismatchError(f"tensor {key!r} changed between memory and file")
    model = inference_copy(reloaded)

    def run(x: Tensor) -> Outputs:
        with torch.no_grad():
            return named_outputs(model(x))

    return Written(run, inputs=(subject.input(2),))


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Compare as bytes, in which a NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)
