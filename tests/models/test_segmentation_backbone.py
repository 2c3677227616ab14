import pytest
import torch

from foveal.models import create_model
from foveal.models.segmentation_backbone import inner, segmentation_backbone


def last(strides):
    return (len(strides) - 1,)


def test_a_stride_that_the_network_has_is_not_asked_for():
    """A vision transformer has stride 16 and takes no output_stride."""
    backbone = segmentation_backbone("test_vit", last, output_stride=16)
    assert backbone.feature_info.reduction() == [16]
    with pytest.raises(ValueError, match=r"'test_vit' cannot have output_stride=8: its maps have"):
        segmentation_backbone("test_vit", last, output_stride=8)
    with pytest.raises(ValueError, match=r"have strides 16; give output_stride=16"):
        segmentation_backbone("test_vit", last, output_stride=32)
    odd = {"patch_size": 20, "img_size": 160}  # a stride that no head is made for
    with pytest.raises(ValueError, match=r"its maps have strides 20; give a backbone that can be"):
        segmentation_backbone("test_vit", last, output_stride=16, backbone_args=odd)


def test_stems_for_small_pictures():
    backbone = segmentation_backbone(
        "mobilenetv2_050_se", last, 8, backbone_args={"stem_stride": 1}
    )
    assert [m.shape for m in backbone.eval()(torch.rand(1, 3, 32, 32))] == [(1, 160, 4, 4)]


def test_module_names_are_the_classification_networks():
    backbone = segmentation_backbone("resnet18", last, output_stride=16)
    whole = create_model("resnet18").state_dict()
    assert inner(backbone).state_dict().keys() == whole.keys() - {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", ["mobilenetv2_050_coordinate", "mobilenetv3_small_050"])
def test_a_checkpoint_of_the_classification_network_loads(tmp_path, name, prefix):
    whole = create_model(name, num_classes=3).eval()
    path = tmp_path / "weights.pth"
    torch.save({f"{prefix}{key}": value for key, value in whole.state_dict().items()}, path)
    backbone = segmentation_backbone(name, last, output_stride=32, checkpoint=path).eval()
    x = torch.rand(1, 3, 64, 64)
    (truth,) = whole.forward_intermediates(x, indices=[4], intermediates_only=True)
    assert torch.equal(backbone(x)[0], truth)

    torch.save({"other.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"does not fit .*: missing: conv_stem\.weight"):
        segmentation_backbone(name, last, output_stride=32, checkpoint=path)


def test_a_checkpoint_is_loaded_instead_of_published_weights(tmp_path):
    """This network has none, so that to ask for them would fail."""
    whole, path = create_model("mobilenext_035"), tmp_path / "weights.pth"
    torch.save(whole.state_dict(), path)
    backbone = segmentation_backbone("mobilenext_035", last, 32, pretrained=True, checkpoint=path)
    own = inner(backbone).state_dict()
    assert own.keys() < whole.state_dict().keys()
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in own.items())
    with pytest.raises(ValueError, match="there are no published weights for 'mobilenext_035'"):
        segmentation_backbone("mobilenext_035", last, 32, pretrained=True)
