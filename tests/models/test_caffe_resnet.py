import pytest
import timm
import torch
import torch.nn.functional as F

from foveal.models.caffe_resnet import CAFFE_INPUT, caffe_layout, stride_first


def trunk(**kw):
    return timm.create_model(
        "resnet50", features_only=True, feature_cls="getter", out_indices=(0, 1, 2, 3, 4), **kw
    )


@pytest.mark.parametrize(("output_stride", "dilations"), [(32, (1, 1)), (16, (1, 2)), (8, (2, 4))])
def test_strides_are_in_the_first_convolution_and_dilations_are_one_for_each_stage(
    output_stride, dilations
):
    with torch.device("meta"):
        network = trunk(output_stride=output_stride)
        keys = list(network.state_dict())
        caffe_layout(network)
    assert list(network.state_dict()) == keys
    model = network.model
    assert model.maxpool.ceil_mode
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    total = 4
    for number, stage in enumerate(stages):
        stride = 2 if number and total < output_stride else 1
        total *= stride
        assert [b.conv1.stride for b in stage] == [(stride, stride)] + [(1, 1)] * (len(stage) - 1)
        assert all(b.conv2.stride == (1, 1) for b in stage)
        assert stage[0].downsample[0].stride == (stride, stride)
        d = dilations[number - 2] if number >= 2 else 1
        assert all(b.conv2.dilation == b.conv2.padding == (d, d) for b in stage)


@pytest.mark.parametrize("side", range(1, 12))
def test_the_pool_reaches_the_last_row_and_column(side):
    network = trunk()
    caffe_layout(network)
    x = torch.rand(1, 64, side, 2 * side)
    y = network.model.maxpool(x)
    assert y.shape[2:] == (side // 2 + 1, side + 1)
    padded = F.pad(x, (1, 4, 1, 4))  # of positive values 0 never is the largest
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            torch.testing.assert_close(y[:, :, i, j], window.amax((2, 3)))


def test_a_block_subsamples_before_all_else():
    block = timm.models.resnet.Bottleneck(
        8, 4, 2, timm.models.resnet.downsample_conv(8, 16, 1, 2)
    ).eval()
    stride_first(block, 2)
    x = torch.rand(1, 8, 9, 12)
    other = timm.models.resnet.Bottleneck(
        8, 4, 1, timm.models.resnet.downsample_conv(8, 16, 1, 1), dilation=2
    ).eval()
    other.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), other(x[:, :, ::2, ::2]))


def test_the_input_is_that_of_caffes_networks():
    x = torch.tensor([104.00699, 116.66877, 122.67892]) / 255
    mean, std = (torch.tensor(CAFFE_INPUT[key]) for key in ("mean", "std"))
    torch.testing.assert_close((x - mean) / std, torch.zeros(3))
    torch.testing.assert_close((1 + x - mean) / std, torch.full((3,), 255.0))
    assert CAFFE_INPUT["channel_order"] == "bgr"


@pytest.mark.parametrize("arguments", [{"stem_type": "deep"}, {"replace_stem_pool": True}])
def test_other_parts_are_refused(arguments):
    with torch.device("meta"):
        network = timm.create_model("resnet50", **arguments)
    with pytest.raises(ValueError, match="the layout of Caffe is for a ResNet of bottlenecks with"):
        caffe_layout(network)
