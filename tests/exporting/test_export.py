import json
import sys
from importlib.util import find_spec

import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from foveal.data.transforms import Preprocess, WholePreprocess
from foveal.exporting import FORMATS, ExportMismatchError, export
from foveal.exporting.subject import relative_deviation
from foveal.layers import CoordinateAttention
from foveal.models import create_model

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra export"
)
ONNX = pytest.param("onnx", marks=needs_onnx)
SLOW_ONNX = pytest.param("onnx", marks=[needs_onnx, pytest.mark.slow])
SUFFIX = {"safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


class TinyNet(nn.Module):
    """Convolution, BatchNorm with statistics of its own, global mean, linear: 3 channels to 4."""

    def __init__(self, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=stride, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        nn.init.normal_(self.bn.running_mean)
        nn.init.uniform_(self.bn.running_var, 0.5, 2.0)

    def features(self, x):
        return torch.relu(self.bn(self.conv(x)))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class TwoOutputs(TinyNet):
    def forward(self, x):
        y = self.features(x)
        return {"saliency": y[:, :1], "edge": y.mean(1, keepdim=True)}


class OneSize(TinyNet):
    def forward(self, x):
        if x.shape[2] != 16 or x.shape[3] != 16:
            raise ValueError("only 16 x 16 pictures\nand a second line")
        return super().forward(x)


class OneBatch(TinyNet):
    def forward(self, x):
        return super().forward(x).reshape(1, 4)


class StripGate(TinyNet):
    """Pools rows with AdaptiveAvgPool2d, which the ONNX exporter fixes at the traced width."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((None, 1))

    def forward(self, x):
        y = self.features(x)
        return self.head((y * torch.sigmoid(self.pool(y))).mean((2, 3)))


class SinglePixel(TinyNet):
    """Comes down to one pixel at 16."""

    def __init__(self):
        super().__init__(stride=4)
        self.down = nn.Conv2d(8, 8, 3, stride=4, padding=1)

    def forward(self, x):
        return self.head(self.down(self.features(x)).mean((2, 3)))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def run_file(path, x):
    """Run a written file with its format's own library, as a user would."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            return torch.export.load(path).module()(x)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {"image": x.numpy()})]


@pytest.mark.parametrize("format", ["torch", ONNX])
def test_the_file_computes_what_the_network_computes(tmp_path, capfd, format):
    model = TinyNet()  # in training mode; the file holds what it computes in eval mode
    report = export(model, format, tmp_path / "net", image_size=16)
    assert capfd.readouterr() == ("", "")
    assert report.path == tmp_path / f"net{SUFFIX[format]}"
    assert list(tmp_path.iterdir()) == [report.path]  # one file, weights inside
    assert report.bytes == report.path.stat().st_size
    assert report.dynamic == ("batch", "height", "width")
    assert report.notes == ()
    assert [c.shape for c in report.checks] == [
        (2, 3, 16, 16),
        (1, 3, 16, 16),
        (3, 3, 20, 24),
        (3, 3, 12, 20),
    ]
    x = torch.randn(5, 3, 31, 17)
    y = run_file(report.path, x)
    y = y if isinstance(y, torch.Tensor) else y[0]
    torch.testing.assert_close(y, model.eval()(x).detach(), rtol=0, atol=1e-5)


def test_str_of_a_report(tmp_path):
    text = str(export(TinyNet().eval(), "torch", tmp_path / "net.pt2", image_size=16))
    lines = text.splitlines()
    assert lines[0].startswith(f"wrote {tmp_path / 'net.pt2'} (torch, 0.0")
    assert lines[1] == "free axes of the input: batch, height, width"
    assert lines[2] == "equal on 2 x 3 x 16 x 16: deviation 0.0e+00 of the largest output"


@pytest.mark.parametrize("format", ["torch", SLOW_ONNX])
def test_mobilenet(tmp_path, format):
    model = timm.create_model("mobilenetv2_050", num_classes=5)  # in training mode
    report = export(model, format, tmp_path / "new folder" / "net", image_size=64)
    assert report.dynamic == ("batch", "height", "width")
    assert {c.shape[2:] for c in report.checks} == {(64, 64), (80, 96), (48, 80)}
    assert max(c.deviation for c in report.checks) <= FORMATS[format].tolerance


class Gated(TinyNet):
    def __init__(self):
        super().__init__()
        self.gate = CoordinateAttention(8)

    def features(self, x):
        return self.gate(super().features(x))


@needs_onnx
def test_coordinate_attention_is_right_at_other_sizes(tmp_path):
    model = Gated().eval()
    report = export(model, "onnx", tmp_path / "net", image_size=16)
    assert report.dynamic == ("batch", "height", "width")
    x = torch.randn(1, 3, 9, 50)
    torch.testing.assert_close(run_file(report.path, x)[0], model(x).detach(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_mobilenet_with_coordinate_attention(tmp_path):
    model = create_model("mobilenetv2_050_coordinate", num_classes=5).eval()
    report = export(model, "onnx", tmp_path / "net", image_size=64)
    assert report.dynamic == ("batch", "height", "width")
    x = torch.randn(1, 3, 100, 70)
    expected = model(x).detach()
    assert relative_deviation({"y": run_file(report.path, x)[0]}, {"y": expected}) < 1e-4


@pytest.mark.parametrize("format", ["torch", ONNX])
def test_a_vit_keeps_its_size_and_the_report_says_so(tmp_path, format):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=5).eval()
    report = export(model, format, tmp_path / "vit", image_size=32)
    assert report.dynamic == ("batch",)
    assert len(report.notes) == 1
    assert report.notes[0].startswith("height and width are fixed at 32: Input height (40)")
    assert "note: height and width are fixed at 32" in str(report)
    assert [c.shape[0] for c in report.checks] == [2, 1, 3]


@pytest.mark.parametrize("format", ["torch", ONNX])
def test_a_network_for_one_size_and_one_batch(tmp_path, format):
    report = export(OneSize().eval(), format, tmp_path / "size", image_size=16)
    assert report.dynamic == ("batch",)
    assert report.notes == ("height and width are fixed at 16: only 16 x 16 pictures",)
    report = export(OneBatch().eval(), format, tmp_path / "batch", image_size=16)
    assert report.dynamic == ()
    assert len(report.notes) == 2
    assert report.notes[1].startswith("the batch is fixed at 1: ")
    assert [c.shape for c in report.checks] == [(1, 3, 16, 16)]


@needs_onnx
def test_a_single_pixel_bounds_the_trace_but_not_onnx(tmp_path):
    model = SinglePixel().eval()
    report = export(model, "torch", tmp_path / "net", image_size=16)
    assert report.dynamic == ("batch",)
    assert "a feature map of a single pixel" in report.notes[0]
    report = export(model, "onnx", tmp_path / "net", image_size=16)
    assert report.dynamic == ("batch", "height", "width")
    assert {c.shape[2:] for c in report.checks} == {(16, 16), (20, 24), (12, 20)}


def test_sizes_that_only_the_trace_refuses_are_not_called_too_small(tmp_path):
    report = export(SinglePixel().eval(), "torch", tmp_path / "net", image_size=18)
    assert report.dynamic == ("batch", "height", "width")
    assert report.notes == (
        "the trace excludes 14 x 22 pixels: one of their feature maps is a single pixel high or "
        "wide",
    )


@needs_onnx
def test_onnx_that_is_wrong_at_another_size_is_not_written(tmp_path):
    model = StripGate().eval()
    assert export(model, "torch", tmp_path / "net", image_size=16).dynamic[1:] == (
        "height",
        "width",
    )
    target = tmp_path / "net.onnx"
    target.write_text("an earlier file")
    with pytest.raises(ExportMismatchError, match=r"onnx file .* on \[3, 3, 20, 24\]") as caught:
        export(model, "onnx", target, image_size=16)
    assert "\n" not in str(caught.value)
    assert target.read_text() == "an earlier file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.pt2"]


@pytest.mark.parametrize("format", ["torch", ONNX])
def test_outputs_by_name(tmp_path, format):
    model = TwoOutputs().eval()
    report = export(model, format, tmp_path / "net", image_size=16)
    assert report.dynamic == ("batch", "height", "width")
    x = torch.randn(1, 3, 9, 21)
    expected, outputs = model(x), run_file(report.path, x)
    if format == "onnx":
        import onnx

        names = [y.name for y in onnx.load(report.path).graph.output]
        outputs = dict(zip(names, outputs, strict=True))
    assert list(outputs) == ["saliency", "edge"]
    for name, y in expected.items():
        torch.testing.assert_close(outputs[name], y.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", ["safetensors", "torch", ONNX])
def test_the_callers_network_is_not_changed(tmp_path, format):
    model = TinyNet().to(memory_format=torch.channels_last).half().train()
    model.bn.eval()
    model.head.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    export(model, format, tmp_path / "net", image_size=16)
    assert [m.training for m in (model, model.conv, model.bn)] == [True, True, False]
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.conv.weight.requires_grad
    assert not model.head.weight.requires_grad
    for key, value in model.state_dict().items():
        assert value.dtype is before[key].dtype
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("format", ["safetensors", "torch", ONNX])
def test_classes_preprocessing_and_architecture_travel_along(tmp_path, format):
    model = timm.create_model("mobilenetv2_035", num_classes=2, in_chans=1).eval()
    model.classes = ("Käse", "b;\n")
    model.preprocess = Preprocess(image_size=40, mean=(0.5,), std=(0.25,))
    if format != "safetensors":  # the small one exports faster
        model, big = TinyNet().eval(), model
        model.conv = nn.Conv2d(1, 8, 3)
        model.classes, model.preprocess = big.classes, big.preprocess
        model.pretrained_cfg = big.pretrained_cfg
    report = export(model, format, tmp_path / "net", metadata={"run": "runs/x"})
    assert report.checks[0].shape == (2, 1, 40, 40)
    if format == "safetensors":
        with safe_open(report.path, "pt") as file:
            found = file.metadata()
    elif format == "torch":
        files = {"foveal.json": ""}
        torch.export.load(report.path, extra_files=files)
        found = json.loads(files["foveal.json"])
    else:
        import onnx

        found = {p.key: p.value for p in onnx.load(report.path).metadata_props}
    assert {k: found[k] for k in ("run", "model")} == {"run": "runs/x", "model": "mobilenetv2_035"}
    assert json.loads(found["classes"]) == ["Käse", "b;\n"]
    assert Preprocess.from_dict(json.loads(found["preprocess"])) == model.preprocess


def test_size_and_channels_without_preprocessing(tmp_path):
    model = TinyNet().eval()
    model.pretrained_cfg = {"input_size": (3, 24, 24)}
    assert export(model, "safetensors", tmp_path / "a").checks[0].shape == (2, 3, 24, 24)
    assert export(TinyNet().eval(), "safetensors", tmp_path / "b").checks[0].shape[2:] == (224, 224)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"format": "onx"},
            ValueError,
            "unknown format 'onx': did you mean 'onnx'?",
        ),
        ({"format": "xyz"}, ValueError, "unknown format 'xyz': it must be one of safetensors, "),
        ({"path": "net.pt"}, ValueError, "the file's name must end in .pt2, not .pt: "),
        ({"path": "."}, IsADirectoryError, " is a folder: name a file"),
        ({"image_size": 0}, ValueError, "image_size must be at least 1 pixel, not 0"),
        ({"model": "runs/x"}, TypeError, "the network must be a torch.nn.Module, not str"),
        ({"metadata": {"a": 1}}, TypeError, "metadata 'a' must be a str, not int"),
        ({"model": nn.Linear(5, 2)}, ValueError, "the network does not take an input of [1, 3, 16"),
        ({"model": nn.LSTM(16, 4)}, ValueError, "the network does not take an input of"),
        (
            {"model": nn.MaxPool2d(2, return_indices=True)},
            TypeError,
            "a network to be exported returns a tensor or a dict of tensors, not tuple",
        ),
    ],
)
def test_wrong_arguments_get_one_sentence(tmp_path, arguments, error, message):
    call = {"model": TinyNet().eval(), "format": "torch", "path": "net", "image_size": 16}
    call |= arguments
    call["path"] = tmp_path / call["path"]
    with pytest.raises(error) as caught:
        export(**call)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@needs_onnx
@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"needs {library}: pip install 'foveal\[export\]'"):
        export(TinyNet().eval(), "onnx", tmp_path / "net", image_size=16)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_traced(tmp_path):
    class Undecided(TinyNet):
        def forward(self, x):
            return super().forward(x) if x.sum().item() > 0 else -super().forward(x)

    with pytest.raises(ValueError, match=r"torch\.export cannot trace the network: "):
        export(Undecided().eval(), "torch", tmp_path / "net", image_size=16)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_can_be_written_at_one_size_only(tmp_path):
    """timm's dilated ConvNeXt pads by a ceil of the size, which torch.export.save does not know."""
    model = create_model("lraspp", num_classes=3, backbone="test_convnext", output_stride=16)
    report = export(model.eval(), "torch", tmp_path / "net", image_size=64)
    assert report.dynamic == ("batch",)
    (note,) = report.notes
    assert note.startswith("height and width are fixed at 64: torch.export cannot write the netw")
    assert "ceil" in note
    x = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(run_file(report.path, x), model(x).detach(), rtol=0, atol=1e-5)


def test_a_graph_that_cannot_be_written(tmp_path, monkeypatch):
    def save(program, path, **_):
        raise RuntimeError("no such operation\nand a second line")

    monkeypatch.setattr("torch.export.save", save)
    with pytest.raises(ValueError, match=r"cannot write the network: no such operation$"):
        export(TinyNet().eval(), "torch", tmp_path / "net", image_size=16)
    assert not list(tmp_path.iterdir())


def test_nan_is_a_mismatch(tmp_path):
    model = TinyNet().eval()
    model.head.bias.data[0] = float("nan")
    with pytest.raises(ExportMismatchError, match="deviates by nan"):
        export(model, "torch", tmp_path / "net", image_size=16)


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    target = tmp_path / "net.pt2"
    target.write_text("an earlier file")

    def save(program, path, **_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.export.save", save)
    with pytest.raises(OSError, match="No space left"):
        export(TinyNet().eval(), "torch", target, image_size=16)
    assert target.read_text() == "an earlier file"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("format", ["safetensors", "torch", ONNX])
def test_a_network_for_pixels_is_right_at_other_sizes(tmp_path, format):
    """Logits of the picture's own size; the writer compares on other sizes and batches."""
    model = create_model("lraspp", num_classes=3, backbone="test_resnet", output_stride=32)
    model.preprocess = WholePreprocess(image_size=64)
    model.classes = ("a", "b", "c")
    report = export(model, format, tmp_path / "net")
    if format != "safetensors":
        assert report.dynamic == ("batch", "height", "width")
        sizes = {check.shape[2:] for check in report.checks}
        assert {(64, 64), (80, 96)} <= sizes
    if format == "torch":
        program = torch.export.load(report.path).module()
        x = torch.randn(2, 3, 72, 104)
        with torch.no_grad():
            expected = model.eval()(x)
            assert expected.shape == (2, 3, 72, 104)
            torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
