"""What every reader of a data set returns, whatever its pictures are labelled with."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, kw_only=True)
class ReadData(Generic[S]):
    """The pictures of a set, in three splits.

    Attributes:
        layout: name of the layout that was read.
        root: what was read; None for the built-in pictures.
        splits: the pictures of ``train``, ``val`` and ``test``. ``train`` is empty where a layout
            has evaluation pictures alone.
        origins: for each split one phrase that says where it came from.
        image_size: side that networks see unless told otherwise, pixels, where the layout suggests
            one; of pictures that are scored whole, that of training crops.
        notes: sentences to print beside results, such as how classes were numbered.
    """

    layout: str
    root: str | None
    splits: Mapping[str, S]
    origins: Mapping[str, str]
    image_size: int | None = None
    notes: tuple[str, ...] = ()

    def require_training(self) -> None:
        """Raise ValueError where there is nothing to train on, only to evaluate."""
        if not len(self.splits["train"]):
            raise ValueError(
                f"{self.root}: there are no training pictures ({self.origins['train']}): "
                "these data serve `foveal eval` only"
            )
