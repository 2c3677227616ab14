import pytest
import torch
import torch.nn.functional as F

from foveal.models.dfi_decoder import Converter, DFIDecoder, Predictor, PyramidSum

TASKS = ("saliency", "edge", "skeleton")


def enlarged(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def filled(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return module.double()


def maps(widths, size=(11, 14), batch=2):
    torch.manual_seed(1)
    return [
        torch.randn(batch, w, max(1, size[0] >> i), max(1, size[1] >> i), dtype=torch.float64)
        for i, w in enumerate(widths)
    ]


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (2, 13)])
def test_the_pyramid_adds_what_torchs_pools_see(size):
    module = filled(PyramidSum(24, 16))
    x = torch.randn(2, 24, *size, dtype=torch.float64)
    p = module.ppm_pre(x)
    total = p
    for side, grid in zip((1, 3, 5), module.ppms, strict=True):
        total = total + enlarged(grid[2](grid[1](F.adaptive_avg_pool2d(p, side))), size)
    torch.testing.assert_close(module(x), module.ppm_cat(F.relu(total)))
    assert (module(x) < 0).any(), "no ReLU at the end"


def test_the_converter_changes_widths_only():
    module = filled(Converter((8, 12), (16, 4)))
    levels = maps((8, 12))
    for part, x, y in zip(module.convert, levels, module(levels), strict=True):
        torch.testing.assert_close(y, F.relu(part[1](part[0](x))))


def test_fused_logits_come_first_and_are_a_weighted_sum_of_the_sides():
    module = filled(Predictor((8, 12, 16)))
    fused, *sides = module(maps((8, 12, 16)), (23, 31))
    total = module.fuse.bias.view(1, 1, 1, 1)
    for weight, conv, x, side in zip(
        module.fuse.weight.flatten(), module.trans, maps((8, 12, 16)), sides, strict=True
    ):
        expected = enlarged(torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], x), (23, 31))
        torch.testing.assert_close(side, expected + conv.bias)
        total = total + weight * side
    torch.testing.assert_close(fused, total)


def test_scales_are_the_sizes_of_the_first_levels_and_attention_is_shared():
    module = filled(DFIDecoder((8, 8, 8, 8), (16, 16, 32, 32), (16, 32), TASKS))
    sizes = {name: [] for name in ("dfims.0", "dfims.1", "tams.0", "tams.1")}
    for name, seen in sizes.items():
        module.get_submodule(name).register_forward_hook(
            lambda _, __, y, seen=seen: seen.append(y if torch.is_tensor(y) else y["edge"])
        )
    outputs = module(maps((8, 8, 8, 8)), (40, 50), ("edge", "skeleton"))
    shapes = {name: [tuple(y.shape) for y in seen] for name, seen in sizes.items()}
    assert shapes == {
        "dfims.0": [(2, 16, 11, 14)],
        "dfims.1": [(2, 32, 5, 7)],
        "tams.0": [(2, 16, 11, 14)] * 2,
        "tams.1": [(2, 32, 5, 7)] * 2,
    }
    assert {task: [tuple(y.shape) for y in logits] for task, logits in outputs.items()} == {
        task: [(2, 1, 40, 50)] * 3 for task in ("edge", "skeleton")
    }
    converted = module.converter(maps((8, 8, 8, 8)))
    scales = [module.tams[d](module.dfims[d](converted)["edge"]) for d in range(2)]
    torch.testing.assert_close(outputs["edge"], module.predictors["edge"](scales, (40, 50)))


def test_gates_of_all_scales():
    module = filled(DFIDecoder((8, 8, 8), (16, 16, 16), (16, 16), TASKS, selected=2))
    gates = module.gates(maps((8, 8, 8)), ("skeleton",))
    assert list(gates) == ["skeleton"]
    assert gates["skeleton"].shape == (2, 2, 3)
    torch.testing.assert_close(gates["skeleton"].sum(2), torch.ones(2, 2, dtype=torch.float64))
