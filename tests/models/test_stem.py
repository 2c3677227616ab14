import pytest
import torch

from foveal.models import create_model

SIDE = 64


@pytest.mark.parametrize("name", ["mobilenetv2_050", "mobilenetv3_small_050", "efficientnet_lite0"])
@pytest.mark.parametrize("kind", [{}, {"feature_cls": "getter"}])
def test_timms_networks_get_a_stem_of_stride_1(name, kind):
    with torch.device("meta"):
        net = create_model(name, stem_stride=1, features_only=True, **kind).eval()
        maps = net(torch.empty(1, 3, SIDE, SIDE))
    assert net.feature_info.reduction() == [1, 2, 4, 8, 16]
    assert [SIDE // m.shape[-1] for m in maps] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("kind", [{}, {"feature_cls": "getter"}])
def test_timms_resnets_get_the_3x3_stem(name, kind):
    with torch.device("meta"):
        net = create_model(name, stem_stride=1, features_only=True, **kind).eval()
        maps = net(torch.empty(1, 3, SIDE, SIDE))
        plain = create_model(name, stem_stride=1, num_classes=100)
    assert net.feature_info.reduction() == [1, 1, 2, 4, 8]
    assert [SIDE // m.shape[-1] for m in maps] == [1, 1, 2, 4, 8]
    assert plain.conv1.weight.shape == (64, 3, 3, 3)


def test_a_pretrained_resnet_has_its_own_stem(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(create_model("resnet18").state_dict(), path)
    with pytest.raises(ValueError, match="the pretrained weights are for the 7x7 stem"):
        create_model(
            "resnet18", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, stem_stride=1
        )


@pytest.mark.parametrize("name", ["mobilenetv2_050", "mobilenetv2_050_se"])
@pytest.mark.parametrize(("output_stride", "side"), [(32, 4), (16, 4), (8, 8), (4, 16)])
def test_output_stride_counts_the_stem(name, output_stride, side):
    with torch.device("meta"):
        net = create_model(name, stem_stride=1, output_stride=output_stride).eval()
        assert net.forward_features(torch.empty(1, 3, SIDE, SIDE)).shape[-1] == side


def test_stride_1_computes_what_stride_2_skips():
    torch.manual_seed(0)
    coarse = create_model("mobilenetv2_050_coordinate").eval()
    fine = create_model("mobilenetv2_050_coordinate", stem_stride=1).eval()
    fine.load_state_dict(coarse.state_dict(), strict=True)
    x = torch.randn(1, 3, 17, 17)
    torch.testing.assert_close(fine.conv_stem(x)[:, :, ::2, ::2], coarse.conv_stem(x))


@pytest.mark.parametrize(
    ("name", "kw", "message"),
    [
        ("mobilenetv2_050", {"stem_stride": 3}, "stem_stride must be 1 or 2, not 3"),
        ("mobilenetv2_050_se", {"stem_stride": 4}, "stem_stride must be 1 or 2, not 4"),
        ("mobilenetv2_050_se", {"output_stride": 12}, "output_stride must be .* not 12"),
        ("vgg11", {"stem_stride": 1}, "'conv_stem' .* or a ResNet, which VGG is not"),
        ("resnet50d", {"stem_stride": 1}, "take a plain one such as resnet18"),
        ("resnet18", {"stem_stride": 1, "output_stride": 8}, "or output_stride, not both"),
    ],
)
def test_impossible_strides_are_refused(name, kw, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **kw)
