"""Insertion into finished networks: what changes, what must not, and what comes after."""

import copy
import io
import pickle
import re

import pytest
import timm
import torch
import torchvision
from torch import nn

import foveal
from foveal.data.transforms import Preprocess
from foveal.layers import LAYERS, CoordinateAttention, StripPooling, create_layer
from foveal.models import count, create_model, list_models
from foveal.surgery import Inserted, holds_inserted, insert, inserted_layers

# Small networks with one structure each, at which everything is tried.
SMALL = [
    ("timm", "test_resnet", "blocks"),
    ("timm", "test_resnet", "expand"),
    ("timm", "test_convnext", "stages"),
    ("tv", "densenet", "stages"),
]
# The networks that people have, of full size.
FULL = [
    ("timm", "resnet18", "layer[34].*"),
    ("tv", "resnet50", "stages"),
    ("timm", "convnext_atto", "blocks"),
    ("timm", "regnety_002", "stages"),
    ("timm", "mobilenetv3_small_050", "expand"),
    ("tv", "efficientnet_b0", "expand"),
    ("tv", "mobilenet_v3_small", "blocks"),
    ("timm", "densenet121", "stages"),
]


def build(library, name, **kw):
    torch.manual_seed(0)
    if name == "densenet":
        model = torchvision.models.DenseNet(4, (2, 2), 8, num_classes=5)
    else:
        make = timm.create_model if library == "timm" else torchvision.models.get_model
        model = make(name, **kw)
    with torch.no_grad():
        for key, value in model.state_dict().items():  # as if trained: nothing is 0 or 1
            if value.is_floating_point() and value.ndim == 1:
                value.add_(torch.rand_like(value) * 0.1 + 0.05 * ("var" not in key))
    return model.eval()


def pictures(batch=2, height=64, width=48):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def small():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)).eval()


def named(family):
    return f"{family[0]}-{family[1]}-{family[2]}"


@pytest.fixture(params=SMALL, ids=named)
def family(request):
    return request.param


@pytest.mark.parametrize("family", SMALL + FULL, ids=named)
def test_with_identity_the_network_computes_the_same_bits(family):
    library, name, where = family
    model, x = build(library, name), pictures()
    with torch.no_grad():
        y = model(x)
        insert(model, "coordinate", where=where, identity=True)
        assert torch.equal(model(x), y)
        for module in inserted_layers(model).values():
            module.scale.fill_(0.5)
        assert not torch.allclose(model(x), y)


def test_with_identity_training_starts_at_the_scale(family):
    library, name, where = family
    model = build(library, name)
    report = insert(model, "coordinate", where=where, identity=True)
    model.train()(pictures()).square().sum().backward()
    for module in report.layers:
        assert module.scale.grad.abs().sum() > 0
        assert all(not p.grad.any() for p in module.layer.parameters())  # until the scale moves


def test_trained_weights_and_their_keys_stay(family):
    library, name, where = family
    model = build(library, name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = insert(model, "se", where=where)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    new = [key for key in after if key not in before]
    assert new
    assert all(map(holds_inserted, new))
    assert not any(map(holds_inserted, before))
    assert {re.sub(r".*\.layer\.", "", key) for key in new} == set(
        create_layer("se", 8).state_dict()
    )
    assert report.after.parameters - report.before.parameters == sum(after[k].numel() for k in new)


def test_undo_takes_everything_out(family):
    library, name, where = family
    model, x = build(library, name), pictures()
    keys = list(model.state_dict())
    with torch.no_grad():
        y = model(x)
        report = insert(model, "cbam", where=where)
        assert not torch.allclose(model(x), y)
        report.undo()
        report.undo()
        assert torch.equal(model(x), y)
    assert list(model.state_dict()) == keys
    assert not inserted_layers(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_were_taken_out_can_be_put_in_again_once():
    model, x = build("timm", "test_resnet"), pictures()
    report = insert(model, "coordinate", where="blocks")
    with torch.no_grad():
        y, keys = model(x), list(model.state_dict())
        report.undo()
        report.apply()
        report.apply()
        assert torch.equal(model(x), y)
    assert list(model.state_dict()) == keys


def test_copies_pickles_and_files_hold_the_layers(family):
    library, name, where = family
    model, x = build(library, name), pictures()
    insert(model, "coordinate", where=where)
    with torch.no_grad():
        y = model(x)
        copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        loaded = build(library, name)
        torch.manual_seed(7)
        insert(loaded, "coordinate", where=where)
        assert not torch.allclose(loaded(x), y)
        loaded.load_state_dict(model.state_dict(), strict=True)
        for module in inserted_layers(model).values():  # the copies have layers of their own
            module.layer.conv_h.bias.add_(1.0)
        assert not torch.allclose(model(x), y)
        for other in (copied, pickled, loaded):
            assert torch.equal(other(x), y)


@pytest.mark.parametrize("identity", [False, True])
def test_exports_with_free_sizes(family, identity):
    library, name, where = family
    model = build(library, name)
    insert(model, "coordinate", where=where, identity=identity)
    for module in inserted_layers(model).values():
        if identity:
            nn.init.constant_(module.scale, 0.7)
    shapes = [dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)]
    exported = torch.export.export(model, (pictures(2, 96, 128),), dynamic_shapes=shapes)
    x = pictures(3, 128, 80)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_every_layer_can_be_inserted_anywhere_in_a_sequential(layer):
    x = pictures()
    for where in ("0", "0.0", "0.[02]", "0.1"):
        model = small()
        with torch.no_grad():
            y = model(x)
            report = insert(model, layer, where=where, identity=True, input_size=(3, 64, 48))
            assert torch.equal(model(x), y)
            for module in report.layers:
                module.scale.fill_(1.0)
            assert not torch.allclose(model(x), y)


@pytest.mark.parametrize("layer", ["strip", "mixed"])
def test_context_goes_to_spnets_places_in_any_resnet(layer):
    """Between 3x3 and last 1x1 convolution of each stage's last block, and of all in the last."""
    tiny = {"layers": (1, 2, 2, 3), "channels": (8, 8, 12, 16)}
    model = build("timm", "resnet50", **tiny)
    expected = model(pictures())
    spnet = create_model("spnet", backbone_args=tiny)
    gates = [n for n, m in spnet.named_modules() if isinstance(m, StripPooling)]
    names = [n.removeprefix("backbone.model.").removesuffix(".gate") for n in gates]
    report = insert(model, layer, where=lambda name, module: name in names, identity=True)
    assert [(place.name, place.channels) for place in report.places] == [
        ("layer1.0.act2", 8),
        ("layer2.1.act2", 8),
        ("layer3.1.act2", 12),
        ("layer4.0.act2", 16),
        ("layer4.1.act2", 16),
        ("layer4.2.act2", 16),
    ]
    torch.testing.assert_close(model(pictures()), expected, rtol=0, atol=0)
    model.train()(pictures()).square().sum().backward()
    scales = [found.scale for found in inserted_layers(model).values()]
    assert len(scales) == 6
    assert all(scale.grad.abs().sum() > 0 for scale in scales)


@pytest.mark.parametrize("name", list_models(task="segment"))
def test_classes_are_exchanged_after_an_insertion_by_a_rule(name):
    model = create_model(name, num_classes=3, backbone="test_resnet", output_stride=32).eval()
    report = insert(model, "mixed", where="stages", input_size=(3, 64, 64))
    assert {place.channels for place in report.places}.isdisjoint({3})
    model.reset_classifier(5)
    assert model(pictures()).shape == (2, 5, 64, 48)


def test_the_layer_acts_on_the_output_of_the_named_module():
    model, x = small(), pictures()
    report = insert(model, "coordinate", where="0.1", input_size=(3, 64, 48))
    layer = report.layers[0].layer
    assert isinstance(layer, CoordinateAttention)
    conv1, relu, conv2 = model[0][0], nn.ReLU(), model[0][2]
    by_hand = model[1:](conv2(layer(relu(conv1(x)))))
    torch.testing.assert_close(model(x), by_hand)


def test_the_start_at_identity_is_the_stated_sum():
    layer = CoordinateAttention(6).eval()
    inserted = Inserted(layer, 6, identity=True).eval()
    scale = torch.tensor([0.0, 1.0, 0.5, -1.0, 2.0, 0.1])
    with torch.no_grad():
        inserted.scale.copy_(scale)
        x = torch.randn(2, 6, 5, 7)
        y = inserted(x)
        for channel, s in enumerate(scale.tolist()):
            expected = (1 - s) * x[:, channel] + s * layer(x)[:, channel]
            torch.testing.assert_close(y[:, channel], expected)


@pytest.mark.parametrize("where", ["0.0", "0"])
def test_a_second_layer_of_a_kind_at_a_place_is_noted(where):
    model, size = small(), (3, 64, 48)
    first = insert(model, "se", where=where, input_size=size)
    other = insert(model, "coordinate", where=where, input_size=size)
    assert first.notes == other.notes == ()
    assert "note" not in str(other)
    second = insert(model, "coordinate", where="0.[02]", input_size=size)
    assert len(second.notes) == (where == "0.0")
    third = insert(model, "coordinate", where=where, input_size=size)
    note = f"there was a layer coordinate already after {where}: now both act"
    assert third.notes == (note,)
    assert str(third).endswith(f"\n\nnote: {note}")


def test_a_second_insertion_acts_after_the_first():
    model, x = small(), pictures()
    first = insert(model, "coordinate", where="0.0", input_size=(3, 64, 48)).layers[0]
    second = insert(model, "se", where="0.0", input_size=(3, 64, 48)).layers[0]
    whole = insert(model, "cbam", where="0", input_size=(3, 64, 48)).layers[0]
    names = list(inserted_layers(model))
    assert sorted(names) == ["0.0.inserted", "0.0.inserted_2", "0.inserted"]
    conv1, conv2 = nn.Conv2d(3, 8, 3, padding=1), model[0][2]
    conv1.load_state_dict({k: model[0][0].state_dict()[k] for k in ("weight", "bias")})
    by_hand = model[1:](whole(conv2(second(first(conv1(x))).relu())))
    torch.testing.assert_close(model(x), by_hand)


def test_patterns_do_not_reach_into_inserted_layers():
    model = timm.create_model("resnet18")
    insert(model, "coordinate", where="layer1.*")
    report = insert(model, "se", where="layer1.*.*", input_size=(3, 64, 64))
    assert not [place.name for place in report.places if "inserted" in place.name]


@pytest.mark.parametrize("rule", ["blocks", "stages", "expand"])
def test_rules_look_through_layers_that_were_inserted_before(rule):
    for name in ("resnet18", "mobilenetv3_small_050"):
        with torch.device("meta"):
            model, plain = timm.create_model(name), timm.create_model(name)
        insert(model, "coordinate", where="blocks", identity=True)
        insert(model, "se", where="expand", identity=True)
        found = insert(model, "triplet", where=rule).places
        assert found == insert(plain, "triplet", where=rule).places


def test_printing_the_report_changes_nothing():
    model, x = build("timm", "test_resnet").train(), pictures()
    first = insert(model, "coordinate", where="blocks")
    insert(model, "se", where="blocks")
    model.eval()
    seen = []
    model.layer1[0].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        y, keys, state = model(x), list(model.state_dict()), torch.get_rng_state()
        assert "latency" in str(first)
        seen.clear()
        assert torch.equal(model(x), y)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(model.state_dict()) == keys
    assert not any(layer.bypassed for layer in inserted_layers(model).values())


def test_an_interrupted_measurement_leaves_the_layers_in():
    model = build("timm", "test_resnet")
    report = insert(model, "coordinate", where="blocks")

    def interrupt(module, args):
        raise KeyboardInterrupt

    model.conv1.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        str(report)
    assert inserted_layers(model)
    assert not any(layer.bypassed for layer in inserted_layers(model).values())


def test_the_report_of_layers_that_were_taken_out_has_no_latency():
    model = build("timm", "test_resnet")
    report = insert(model, "coordinate", where="blocks")
    report.undo()
    model.double()
    assert "latency" not in str(report)


def test_inserting_draws_nothing_but_the_layers_weights():
    torch.manual_seed(3)
    model = timm.create_model("test_resnet")
    insert(model, "triplet", where="layer4.0", identity=True)
    after = torch.rand(3)
    torch.manual_seed(3)
    timm.create_model("test_resnet")
    create_layer("triplet", 8)
    assert torch.equal(torch.rand(3), after)


def test_a_compiled_network_is_refused():
    model = build("timm", "test_resnet")
    wrapped = torch.compile(build("timm", "test_resnet"), backend="eager")
    model.compile(backend="eager")
    for compiled in (model, wrapped, nn.Sequential(model)):
        with pytest.raises(ValueError, match=r"network is compiled.*insert first, then compile"):
            insert(compiled, "se", where="blocks")
    with pytest.raises(ValueError, match="insert into the network inside DataParallel"):
        insert(nn.DataParallel(build("timm", "test_resnet")), "se", where="blocks")


def test_a_report_of_a_network_compiled_later_keeps_the_layers():
    torch.compiler.reset()
    model, x = build("timm", "test_resnet"), pictures()
    report = insert(model, "coordinate", where="blocks")
    with torch.no_grad():
        y = model(x)
        model.compile(backend="eager")
        assert "latency" in str(report)
        torch.testing.assert_close(model(x), y)
    torch.compiler.reset()


def test_works_in_inference_mode():
    model, x = build("timm", "test_resnet"), pictures()
    with torch.inference_mode():
        y = model(x)
        insert(model, "coordinate", where="blocks", identity=True)
        assert torch.equal(model(x), y)


def test_networks_that_make_tensors_on_the_way():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3)

        def forward(self, x):
            rows = torch.linspace(0, 1, x.shape[2])[:, None].expand(len(x), 1, *x.shape[2:])
            return self.conv(torch.cat([x, rows], 1)).mean((2, 3))

    report = insert(Net(), "se", where="conv", input_size=(3, 12, 10))
    assert report.places[0].size == (10, 8)


def test_weights_made_later_start_at_identity_too():
    with torch.device("meta"):
        model = timm.create_model("test_resnet")
        report = insert(model, "coordinate", where="blocks", identity=True)
    model.to_empty(device="cpu")
    for layer in report.layers:
        layer.reset_parameters()
        assert not layer.scale.any()


def test_a_host_that_runs_its_children_by_itself_is_refused():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            for child in self.children():
                x = child(x)
            return x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = Chain()

        def forward(self, x):
            return self.body(x)

    model = Net()
    with pytest.raises(ValueError, match="the layer after 'body' would act 2 times: Chain runs"):
        insert(model, "se", where="body", input_size=(3, 8, 8))
    assert not inserted_layers(model)
    insert(model, "se", where="body.conv", input_size=(3, 8, 8))


def test_a_network_of_a_run_is_looked_at_in_its_own_size():
    model = timm.create_model("test_resnet", in_chans=1)
    model.preprocess = Preprocess(
        image_size=28, mean=(0.5,), std=(0.5,), crop_pct=1.0, interpolation="bilinear"
    )
    assert insert(model, "se", where="blocks").input_size == (1, 28, 28)


def test_gradient_checkpointing_of_stages_keeps_the_layer():
    model, x = build("timm", "test_resnet"), pictures()
    insert(model, "coordinate", where="layer?")
    y = model.train()(x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), y)


def test_layers_follow_device_type_and_mode():
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    report = insert(model.half(), "coordinate", where="stages", identity=True)
    tensors = [t for m in report.layers for t in (*m.parameters(), *m.buffers())]
    assert all(t.is_meta for t in tensors)
    assert {t.dtype for t in tensors} == {torch.float16, torch.int64}
    assert report.latency is None
    assert "latency" not in str(report)
    model = build("timm", "resnet18")
    report = insert(model, "coordinate", where="stages")
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_and_autocast_keep_the_bits_too(dtype):
    x = pictures()
    for autocast in (True, False):
        model = build("timm", "test_resnet")
        if not autocast:
            model = model.to(dtype)
        kind = x if autocast else x.to(dtype)
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
            y = model(kind)
            insert(model, "coordinate", where="blocks", identity=True)
            assert torch.equal(model(kind), y)


def test_channels_last_is_kept():
    model = build("timm", "resnet18").to(memory_format=torch.channels_last)
    insert(model, "coordinate", where="blocks", identity=True)
    seen = []
    model.layer4[1].conv1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(pictures().to(memory_format=torch.channels_last))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_expand_in_mobilenetv2_is_coordinate_attentions_official_place():
    with torch.device("meta"):
        plain, official = (
            timm.create_model("mobilenetv2_100"),
            foveal.create_model("mobilenetv2_100_coordinate"),
        )
    report = insert(plain, "coordinate", where="expand")
    assert len(report.places) == 16
    assert report.after == count(official, (3, 224, 224))
    assert report.after.parameters - report.before.parameters == 445_776  # measured, see the docs


def test_the_report_is_a_table_with_costs_before_and_after():
    model = build("timm", "resnet18")
    report = insert(model, "coordinate", where="layer[34].*", identity=True, reduction=16)
    text = str(report)
    # 3 C m + 2 C + 3 m and the scale's C, with m = C / 16.
    assert re.search(r"layer3\.1 +256 +14x14 +13,104\b", text)
    assert re.search(r"layer4\.0 +512 +7x7 +50,784\b", text)
    assert "coordinate, reduction=16 after 4 modules of ResNet" in text
    assert "where: layer[34].*), starting at identity" in text
    assert re.search(r"parameters +11,689,512 +11,817,288 +\+1\.1%", text)
    assert re.search(r"multiply-adds \(3x224x224\) +1,814\.1 M +1,81\d\.\d M", text)
    assert re.search(r"latency \(cpu, \d threads?\) +\d+\.\d ms +\d+\.\d ms", text)
    assert report.latency.before > 0
    assert len(inserted_layers(model)) == 4  # measuring put everything back
    assert not model.training


@pytest.mark.parametrize(
    ("kw", "error", "message"),
    [
        (
            {"layer": "cordinate"},
            ValueError,
            "unknown layer 'cordinate': did you mean 'coord",
        ),
        ({"reductio": 3}, TypeError, "unknown coordinate argument 'reductio': did you mean 'reduc"),
        ({"reduction": "x"}, TypeError, "the coordinate layer does not take"),
        ({"reduction": 0}, ValueError, "reduction must be at least 1, not 0"),
        ({"where": "layer9.*"}, ValueError, "where='layer9.*' matches no module of ResNet"),
        ({"reduction": 2.5}, TypeError, "the coordinate layer does not take {'reduction': 2.5}:"),
        (
            {"device": "cpu"},
            TypeError,
            "the layer's device cannot be given: the network",
        ),
        ({"channels": 3}, TypeError, "the layer's channels cannot be given"),
        ({"layer": nn.Identity()}, TypeError, "layer must be a name, such as 'coordinate', not Id"),
        ({"identity": "true"}, TypeError, "identity must be True or False, not 'true'"),
        ({"where": nn.Conv2d}, TypeError, "write lambda name, module: isinstance(module, Conv2d)"),
        ({"input_size": 224}, ValueError, "input_size must be (C, H, W) of at least 1 each, not 2"),
        ({"input_size": (224, 224)}, ValueError, "input_size must be (C, H, W) of at least 1 each"),
        ({"input_size": (3, 0, 64)}, ValueError, "input_size must be"),
        ({"input_size": (1, 64, 64)}, ValueError, r"does not run on shapes of an input \[1, 64"),
    ],
)
def test_wrong_input_is_one_sentence_and_changes_nothing(kw, error, message):
    model = timm.create_model("resnet18")
    arguments = {"layer": "coordinate", "where": "blocks", **kw}
    with pytest.raises(error, match=re.escape(message) if "\\" not in message else message) as e:
        insert(model, arguments.pop("layer"), **arguments)
    assert "\n" not in str(e.value)
    assert not inserted_layers(model)


def test_a_network_of_nothing_but_containers_says_what_to_do():
    class Chain(nn.ModuleList):
        def forward(self, x):
            for module in self:
                x = module(x)
            return x

    model = Chain([nn.Conv2d(3, 4, 1), Chain([nn.Conv2d(4, 4, 1)])])
    with pytest.raises(ValueError, match="nothing can be inserted after '1'"):
        insert(model, "se", where="*", input_size=(3, 8, 8))
    assert not inserted_layers(model)  # nor after '0', where it could have been


def test_only_networks_take_layers():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, not str"):
        insert("resnet18", "se", where="blocks")


def test_weights_of_a_network_with_layers_load_into_the_same_with_the_usual_calls():
    file = io.BytesIO()
    first, second = build("timm", "resnet18"), timm.create_model("resnet18").eval()
    for model in (first, second):
        foveal.insert(model, "coordinate", where="blocks", identity=True)
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(first(pictures()), second(pictures()))


@pytest.mark.slow
@pytest.mark.parametrize("identity", [False, True])
def test_compiles_for_training(identity):
    torch.compiler.reset()
    model = build("timm", "resnet18").train()
    insert(model, "coordinate", where="layer[34].*", identity=identity)
    other = copy.deepcopy(model)
    other.compile()
    outputs = []
    for net in (model, other):
        y = net(pictures())
        y.square().sum().backward()
        outputs.append((y, [p.grad for p in net.parameters()]))
    (y, grads), (y2, grads2) = outputs
    torch.testing.assert_close(y2, y, rtol=1e-3, atol=1e-4)
    norm = torch.stack([g.norm() for g in grads]).norm()
    for a, b in zip(grads, grads2, strict=True):
        assert (a - b).norm() < 1e-2 * norm
