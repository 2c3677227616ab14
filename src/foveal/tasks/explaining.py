"""``foveal.explain``: what in pictures speaks for an answer of a network."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from foveal.config import task_of
from foveal.data.transforms import Preprocess, WholePreprocess
from foveal.explanation import METHODS, Explanation
from foveal.explanation import explain as explain_batch
from foveal.explanation.explanation import Middle
from foveal.models.input_size import input_size_of
from foveal.names import unknown
from foveal.tasks.classify import preprocess_of
from foveal.tasks.prediction import Picture, Source, expand_source, open_source
from foveal.tasks.run import Run, load, read_config, run_folder

Target = int | str | Sequence[int | str | Sequence[int | str]] | Tensor | NDArray[Any] | None
Device = Literal["auto", "cpu", "cuda"]

EXPLAINED = ("classify", "segment", "weak")
TOGETHER = 16  # pictures in one forward pass


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
            pictures; one for each picture; several for each, ``[[0, 3], [1, 4]]``; or ``"all"``.
            None: the predicted class.
        device: ``auto`` takes the GPU if there is one; a network given as such stays where it is.
        **options: of the method, such as ``layer``, ``scales`` and ``mirror``.

    Returns:
        One explanation for each picture and class, picture by picture; of ``gates``, for each
        picture and layer. ``.map`` is float32 [H, W] at the picture's size; where a network sees
        the middle of a picture alone, it is 0 outside.

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
    if method == "collapse":
        raise ValueError(
            "collapse compares the layers of a network over all pictures and has no map of one: "
            "use foveal.explanation.attention_collapse, or the command"
        )
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    if method != "gates":
        check_has_classes(run_or_model)
    model = network_of(run_or_model, device)
    if isinstance(images, Tensor):
        parameter = next(model.parameters(), torch.empty(0))
        kind = parameter.dtype if images.is_floating_point() else images.dtype  # which is refused
        x = images.to(parameter.device, kind)
        return explain_batch(model, x, method, _numbers(model, target), **options)
    explained = explained_batches(model, listed(images), method, target, **options)
    return [one for batch in explained for of_picture in batch.placed for one in of_picture]


@dataclass(frozen=True)
class ExplainedBatch:
    """Some pictures as the network saw them, and what was found.

    Attributes:
        pictures: B of them.
        x: [B, C, h, w].
        found: over x, as many for each picture, picture by picture.
        placed: of each picture the same over the whole picture.
    """

    pictures: list[Picture]
    x: Tensor
    found: list[Explanation]
    placed: list[list[Explanation]]


def explained_batches(
    model: nn.Module,
    sources: Sequence[Source],
    method: str,
    target: Target = None,
    **options: Any,
) -> Iterator[ExplainedBatch]:
    """Explain pictures, those together that the network sees at one size, and few open at a time.

    Args:
        model: as of :func:`explain`.
        sources: pictures, or their paths.
        method: as of :func:`explain`.
        target: likewise.
        **options: likewise.

    Raises:
        ValueError, TypeError, DamagedPictureError: as of :func:`explain`.
    """
    parameter = next(model.parameters(), torch.empty(0))
    preprocess = _preprocess(model)
    targets = _for_each(_numbers(model, target), len(sources))
    most = 1 if isinstance(target, str) and target == "all" else TOGETHER
    batch: list[tuple[Tensor, Picture, Any]] = []

    def explained() -> ExplainedBatch:
        x = torch.stack([seen for seen, _, _ in batch]).to(parameter.device, parameter.dtype)
        own = [chosen for _, _, chosen in batch]
        chosen = own[0] if own[0] in (None, "all") else own
        found = explain_batch(model, x, method, chosen, **options)
        each = len(found) // len(batch)
        placed = [
            [_placed(one, image, preprocess) for one in found[k * each : (k + 1) * each]]
            for k, (_, (_, image), _) in enumerate(batch)
        ]
        return ExplainedBatch([picture for _, picture, _ in batch], x, found, placed)

    for source, chosen in zip(sources, targets, strict=True):
        picture = open_source(source)
        seen = preprocess(picture[1])
        if batch and (len(batch) == most or seen.shape != batch[0][0].shape):
            yield explained()
            batch = []
        batch.append((seen, picture, chosen))
    if batch:
        yield explained()


def listed(images: Source | Iterable[Source]) -> list[Source]:
    """Return pictures, or their paths, with those in folders.

    Raises:
        ValueError: no such picture.
    """
    sources = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    return [one for source in sources for one in expand_source(source)]


def network_of(run_or_model: str | Path | Run | nn.Module, device: Device) -> nn.Module:
    """Return a run's network on a device; one given as such stays where it is.

    Raises:
        ValueError: no such run, or no GPU.
    """
    if isinstance(run_or_model, nn.Module):
        return run_or_model
    model = load(run_or_model)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: PyTorch sees no GPU here; use auto or cpu")
    return model.to("cuda") if device != "cpu" and torch.cuda.is_available() else model


def check_has_classes(run_or_model: str | Path | Run | nn.Module) -> None:
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
    """Return targets with the numbers of the classes instead of their names.

    A number in letters is the class of this name if there is one, else of this number.

    Raises:
        ValueError: a name that the network does not know.
    """
    if isinstance(target, Tensor | np.ndarray):
        return _numbers(model, target.tolist())
    if isinstance(target, str) and target != "all":
        classes = tuple(getattr(model, "classes", ()))
        if target in classes:
            return classes.index(target)
        if target.isdecimal():
            return int(target)
        if not classes:
            raise ValueError(f"the network has no names of classes: give a number, not {target!r}")
        raise ValueError(unknown("class", target, classes))
    if isinstance(target, Sequence) and not isinstance(target, str):
        return [_numbers(model, one) for one in target]
    return target


def _for_each(target: Any, pictures: int) -> list[Any]:
    """Return the target of each picture.

    Raises:
        ValueError: they are given for another number of pictures.
    """
    if not isinstance(target, list):
        return [target] * pictures
    if len(target) != pictures:
        raise ValueError(
            f"target must be one class, or one for each of the {pictures} pictures, not "
            f"{len(target)}"
        )
    if len({len(one) if isinstance(one, list) else 0 for one in target}) > 1:
        raise ValueError("target must have the same number of classes for each picture")
    if None in target or "all" in target:
        raise ValueError("of some pictures the predicted class, or all, cannot be asked for alone")
    return target


def _placed(found: Explanation, image: Image.Image, preprocess: Preprocess) -> Explanation:
    """Return an explanation over the whole picture, of which the network may see the middle."""
    width, height = image.size
    if isinstance(preprocess, WholePreprocess):
        return found  # the network saw the picture as it is
    short = math.floor(preprocess.image_size / preprocess.crop_pct)
    # As torchvision's Resize does it.
    if height <= width:
        resized = (short, int(short * width / height))
    else:
        resized = (int(short * height / width), short)
    middle = Middle(resized, preprocess.image_size)
    return dataclasses.replace(found, size=(height, width), middle=middle)
