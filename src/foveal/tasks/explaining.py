"""``foveal.explain``: what in pictures speaks for an answer of a network."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from foveal.config import task_of
from foveal.data.transforms import Preprocess, WholePreprocess
from foveal.explanation import METHODS, Explanation
from foveal.explanation import explain as explain_batch
from foveal.explanation.class_activation import enlarged
from foveal.models.input_size import input_size_of
from foveal.names import unknown
from foveal.tasks.classify import preprocess_of
from foveal.tasks.prediction import Picture, Source, expand_source, open_source
from foveal.tasks.run import Run, load, read_config, run_folder

Target = int | str | Sequence[int | str] | Tensor | None
Device = Literal["auto", "cpu", "cuda"]

EXPLAINED = ("classify", "segment", "weak")


def explain(
    run_or_model: str | Path | Run | nn.Module,
    images: Tensor | Source | Iterable[Source],
    *,
    method: str = "gradcam",
    target: Target = None,
    device: Device = "auto",
    **options: Any,
) -> list[Explanation]:
    """Return what in pictures speaks for an answer of a network.

    Args:
        run_or_model: a run folder of classification or segmentation, what :func:`foveal.train`
            returned, or any network with logits [B, K] or [B, K, H, W]; it is left as it was.
        images: paths of pictures or of folders of pictures (their subfolders too), PIL images, or
            several of those, which are prepared as the network wants them; or a float tensor
            [B, C, H, W] that is taken as already prepared.
        method: a name in :data:`foveal.explanation.METHODS`, such as ``gradcam`` or ``rollout``.
        target: a class by its number, or by its name where the network has ``classes``, for all
            pictures; one for each picture; or ``"all"``. None: the predicted class.
        device: ``auto`` takes the GPU if there is one; a network given as such stays where it is.
        **options: of the method, such as ``layer``, ``scales`` and ``mirror``.

    Returns:
        One explanation for each picture and class, picture by picture. ``.map`` is float32 [H, W]
        at the picture's size; where a network sees the middle of a picture alone, it is 0 outside.

    Raises:
        ValueError: no such run, picture, method, layer or class; a run of another task.
        TypeError: an option that the method does not have.
        DamagedPictureError: a picture will not open.

    Example:
        >>> import timm
        >>> network = timm.create_model("test_resnet", num_classes=5)
        >>> picture = Image.new("RGB", (60, 40))
        >>> (explanation,) = explain(network, picture, method="gradcam++", target=3)
        >>> explanation.target, explanation.map.shape
        (3, torch.Size([40, 60]))
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    _check_classes(run_or_model)
    model = _network(run_or_model, device)
    parameter = next(model.parameters(), torch.empty(0))
    if isinstance(images, Tensor):
        x = images.to(parameter.device, parameter.dtype)
        return explain_batch(model, x, method, _numbers(model, target), **options)
    pictures = open_pictures(images)
    preprocess = _preprocess(model)
    targets = _for_each(target, len(pictures))
    found = []
    for (_, image), own in zip(pictures, targets, strict=True):
        x = preprocess(image)[None].to(parameter.device, parameter.dtype)
        of_picture = explain_batch(model, x, method, _numbers(model, own), **options)
        found += [_placed(one, image, preprocess) for one in of_picture]
    return found


def open_pictures(images: Source | Iterable[Source]) -> list[Picture]:
    """Open pictures, and those in folders; (path or "", picture) each.

    Raises:
        ValueError: no such picture.
        DamagedPictureError: one will not open.
    """
    sources = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    return [open_source(one) for source in sources for one in expand_source(source)]


def _network(run_or_model: str | Path | Run | nn.Module, device: Device) -> nn.Module:
    if isinstance(run_or_model, nn.Module):
        return run_or_model
    model = load(run_or_model)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: PyTorch sees no GPU here; use auto or cpu")
    return model.to("cuda") if device != "cpu" and torch.cuda.is_available() else model


def _check_classes(run_or_model: str | Path | Run | nn.Module) -> None:
    """Do nothing if there are classes to explain.

    Raises:
        ValueError: a run of another task.
    """
    if isinstance(run_or_model, nn.Module):
        return
    folder = run_folder(run_or_model.path if isinstance(run_or_model, Run) else run_or_model)
    task = task_of(read_config(folder))
    if task not in EXPLAINED:
        raise ValueError(
            f"{folder} is a run of {task}, whose network has no classes to explain: give one of "
            f"{' or '.join(EXPLAINED[:2])}"
        )


def _preprocess(model: Any) -> Preprocess:
    """Return what the network wants to see: as its run says, else as timm describes it."""
    if (own := getattr(model, "preprocess", None)) is not None:
        return own  # type: ignore[no-any-return]
    return preprocess_of(model, input_size_of(model)[-1])


def _numbers(model: Any, target: Any) -> Any:
    """Return targets with the numbers of the classes instead of their names."""
    if isinstance(target, Tensor) or target in (None, "all"):
        return target
    if isinstance(target, str):
        classes = tuple(getattr(model, "classes", ()))
        if target in classes:
            return classes.index(target)
        if not classes:
            raise ValueError(f"the network has no names of classes: give a number, not {target!r}")
        raise ValueError(unknown("class", target, classes))
    if isinstance(target, Sequence):
        return torch.tensor([_numbers(model, one) for one in target])
    return target


def _for_each(target: Target, pictures: int) -> list[Any]:
    """Return the target of each picture.

    Raises:
        ValueError: they are given for another number of pictures.
    """
    if isinstance(target, str | int) or target is None:
        return [target] * pictures
    if isinstance(target, Tensor) and target.ndim == 0:
        return [target] * pictures
    if len(target) != pictures:
        raise ValueError(
            f"target must be one class, or one for each of the {pictures} pictures, not "
            f"{len(target)}"
        )
    return [one[None] if isinstance(one, Tensor) else one for one in target]


def _placed(found: Explanation, image: Image.Image, preprocess: Preprocess) -> Explanation:
    """Return an explanation over the whole picture, of which the network may see the middle."""
    width, height = image.size
    if isinstance(preprocess, WholePreprocess):
        return found  # the network saw the picture as it is
    short = math.floor(preprocess.image_size / preprocess.crop_pct)
    # As torchvision's Resize and CenterCrop do it.
    if height <= width:
        resized = (short, int(short * width / height))
    else:
        resized = (int(short * height / width), short)
    side = preprocess.image_size
    if resized == (side, side):
        return dataclasses.replace(found, size=(height, width))
    top, left = (round((whole - side) / 2.0) for whole in resized)
    frame = found.raw.new_zeros((1, 1, *resized))
    frame[0, 0, top : top + side, left : left + side] = found.map
    return dataclasses.replace(
        found, raw=enlarged(frame, (height, width))[0, 0], size=(height, width)
    )


def explain_files(
    run: str | Path | Run,
    images: Source | Iterable[Source],
    out: Path,
    *,
    method: str = "gradcam",
    target: Target = None,
    layer: str | None = None,
    device: Device = "auto",
) -> list[Path]:
    """Write explanations of pictures as figures and data, and return the paths.

    Args:
        run: as of :func:`explain`.
        images: likewise, without tensors.
        out: the folder.
        method: likewise; also ``gates``, of all layers that have some, and ``collapse``, of a
            vision transformer over all pictures.
        target: as of :func:`explain`.
        layer: whose maps are weighed; None: the last.
        device: as of :func:`explain`.

    Raises:
        ValueError: as of :func:`explain`; a target or a layer for a method without.
    """
    from foveal.tasks.explanation_files import save_collapse, save_explanations, save_gates

    measures = {"gates": save_gates, "collapse": save_collapse}
    if method in measures:
        for name, value in (("target", target), ("layer", layer)):
            if value is not None:
                raise ValueError(
                    f"{method} is the same for all classes and layers: leave {name} out"
                )
    if method not in measures:
        _check_classes(run)
    model: Any = _network(run, device)
    pictures = open_pictures(images)
    if method in measures:
        return measures[method](model, pictures, out)
    options: dict[str, Any] = {} if layer is None else {"layer": layer}
    found = explain(
        model, [image for _, image in pictures], method=method, target=target, **options
    )
    return save_explanations(found, pictures, model.classes, out)
