import pytest
import torch

from foveal.models import check_input_size, create_model, nearest_valid_size


def meta(name, **kw):
    with torch.device("meta"):
        return create_model(name, **kw)


@pytest.mark.parametrize("size", [1, 2, 31, 224])
def test_convolutional_networks_take_any_size(size):
    check_input_size(meta("mobilenetv2_050_coordinate"), size)


@pytest.mark.parametrize(
    ("name", "kw", "size", "nearest"),
    [
        ("vit_tiny_patch16_224", {}, 100, 224),
        ("vit_tiny_patch16_224", {}, 300, 224),
        ("vit_tiny_patch16_224", {"img_size": 96}, 100, 96),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, 100, 96),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, 110, 112),
        ("mobilenetv2_050_se", {}, 0, 1),
        ("mobilenetv2_050_se", {"in_chans": 1}, -4, 1),
    ],
)
def test_a_size_that_cannot_be_taken_names_the_nearest_that_can(name, kw, size, nearest):
    net = meta(name, **kw)
    assert nearest_valid_size(net, size) == nearest
    message = f"cannot take pictures of {size} x {size} pixels: the nearest .* is {nearest}$"
    with pytest.raises(ValueError, match=message):
        check_input_size(net, size)


def test_a_smallest_size_is_found_exactly():
    # Two unpadded convolutions of 3 and 5 need 7 pixels.
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Conv2d(4, 4, 5))
    assert nearest_valid_size(net, 3) == 7
    assert nearest_valid_size(net, 7) == 7


def test_a_network_that_takes_nothing_is_left_to_the_real_run():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("never")

    assert nearest_valid_size(Broken(), 32) is None
    check_input_size(Broken(), 32)
