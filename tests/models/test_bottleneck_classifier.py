import pytest
import torch
from safetensors.torch import save_file

from foveal.models import create_model
from foveal.models.domain_discriminator import DomainDiscriminator

# Pooled features of very different makes: ResNet, a head after the pooling, transformers.
BACKBONES = (
    "test_resnet",
    "test_efficientnet",
    "mobilenetv3_small_050",
    "test_vit",
    "test_convnext",
)


def create(backbone="test_resnet", **kw):
    torch.manual_seed(0)
    settings = {"backbone": backbone, "num_classes": 5, "bottleneck_dim": 8}
    return create_model("bottleneck_classifier", **settings | kw).eval()


def pictures(side=64, channels=3):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_logits_are_two_linear_layers_of_the_pooled_features(backbone):
    net = create(backbone)
    x = pictures(160)
    plain = create_model(backbone, num_classes=0).eval()
    plain.load_state_dict(net.backbone.state_dict())
    with torch.no_grad():
        pooled, f, z = plain(x).double(), net.features(x), net(x)
    assert pooled.ndim == 2
    w, v = net.bottleneck.weight.double(), net.classifier.weight.double()
    torch.testing.assert_close(f, (pooled @ w.T).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(z, (pooled @ w.T @ v.T).float(), rtol=1e-4, atol=1e-4)
    assert z.shape == (2, 5)


def test_new_layers_start_xavier_normal_without_bias():
    net = create(bottleneck_dim=400, num_classes=300)
    for layer in (net.bottleneck, net.classifier):
        fan = sum(layer.weight.shape)
        assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
        assert not layer.bias.any()


def test_gradients_reach_every_parameter():
    net = create().train()
    net(pictures()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_another_classifier_and_none():
    net = create()
    before = net.features(pictures())
    net.reset_classifier(7)
    assert net(pictures()).shape == (2, 7)
    assert net.default_cfg["num_classes"] == net.num_classes == 7
    net.reset_classifier(0)
    assert net(pictures()).equal(before)
    assert create(num_classes=None).num_classes == 1000
    assert create(in_chans=1)(pictures(channels=1)).shape == (2, 5)


def test_the_trunk_starts_from_a_classifiers_weights(tmp_path):
    torch.manual_seed(5)
    whole = create_model("test_resnet", num_classes=7)
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    trunk = create(backbone_checkpoint=tmp_path / "weights.safetensors").backbone.state_dict()
    assert all(trunk[key].equal(whole.state_dict()[key]) for key in trunk)
    assert len(trunk) == len(whole.state_dict()) - 2
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        create(backbone_checkpoint=tmp_path / "other.safetensors")


def test_export_and_the_meta_device():
    net = create()
    program = torch.export.export(net, (pictures(),))
    torch.testing.assert_close(program.module()(pictures()), net(pictures()))
    with torch.device("meta"):
        assert create().bottleneck.weight.is_meta


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"bottleneck_dim": 0}, ValueError, "bottleneck_dim must be at least 1, not 0"),
        ({"bottleneck_dim": 2.5}, TypeError, "bottleneck_dim"),
        ({"backbone": "resnet5"}, ValueError, "unknown model 'resnet5': did you mean 'resnet50'"),
        ({"backbone_args": {"num_classes": 3}}, TypeError, "it is an argument of the model"),
        ({"backbone_args": {"features_only": True}}, TypeError, "stands on the pooled features"),
        ({"backbone_args": 3}, TypeError, "backbone_args must map names"),
        ({"output_stride": 8}, TypeError, "unknown bottleneck_classifier argument"),
    ],
)
def test_wrong_arguments(options, kind, message):
    with pytest.raises(kind, match=message):
        create(**options)


def test_a_dense_discriminator_is_the_flat_one_at_each_position():
    torch.manual_seed(0)
    flat, dense = DomainDiscriminator(3, 4), DomainDiscriminator(3, 4, dense=True)
    dense.load_state_dict(
        {
            k: v.reshape(w.shape)
            for (k, v), w in zip(
                flat.state_dict().items(), dense.state_dict().values(), strict=True
            )
        }
    )
    x = torch.rand(2, 3, 4, 5)
    items = x.permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(dense(x).flatten(), flat(items))
    h = (items.double() @ flat[0].weight.double().T).clamp_min(0)
    truth = (h @ flat[2].weight.double().T)[:, 0]
    torch.testing.assert_close(flat(items), truth.float())
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        DomainDiscriminator(3, 0)
