import pytest
import timm
import torch
from torchvision.models.segmentation.lraspp import LRASPP

from foveal.models import create_model


@pytest.mark.parametrize(("output_stride", "low"), [(8, 24), (16, 32), (32, 96)])
def test_the_finer_level_has_half_the_stride(output_stride, low):
    with torch.device("meta"):
        net = create_model("lraspp", output_stride=output_stride)
        fine, coarse = net.eval().backbone(torch.empty(1, 3, 64, 64))
    assert (64 // fine.shape[-1], 64 // coarse.shape[-1]) == (output_stride // 2, output_stride)
    assert net.head.low_classifier.in_channels == low
    assert net.head.high_classifier.in_channels == 128


def test_computes_what_torchvisions_network_does():
    torch.manual_seed(0)
    ours = create_model("lraspp", num_classes=3, hidden=16).eval()
    trunk = timm.create_model(
        "mobilenetv2_100_coordinate",
        features_only=True,
        feature_cls="getter",
        output_stride=16,
        out_indices=(2, 4),
    )
    trunk.load_state_dict(ours.backbone.state_dict())

    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = trunk

        def forward(self, x):
            return dict(zip(("low", "high"), self.trunk(x), strict=True))

    theirs = LRASPP(Named(), 32, 320, 3, 16).eval()
    theirs.classifier.load_state_dict(ours.head.state_dict())
    x = torch.rand(2, 3, 65, 50)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x)["out"])


def test_mobilenetv3_can_be_dilated():
    """Only timm's class for its feature maps can, not the one that names of modules come from."""
    net = create_model("lraspp", backbone="mobilenetv3_small_050", num_classes=4).eval()
    assert net(torch.rand(1, 3, 64, 50)).shape == (1, 4, 64, 50)
    assert [m.shape[-1] for m in net.backbone(torch.rand(1, 3, 64, 64))] == [8, 4]


def test_wrong_input_gets_one_sentence():
    with pytest.raises(TypeError, match="hidden must be a whole number, not '64'"):
        create_model("lraspp", hidden="64")
    with pytest.raises(ValueError, match="hidden must be at least 1, not 0"):
        create_model("lraspp", hidden=0)
    with pytest.raises(ValueError, match="'test_vit' has no map of stride 8 beside that of 16"):
        create_model("lraspp", backbone="test_vit")
