"""One trained checkpoint among those that are asked together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_pl.data.frame import Frame, Pixels
from boneage_pl.data.perturbed import mirrored, rotated
from boneage_pl.errors import BoneageError
from boneage_pl.model.features import Tap
from boneage_pl.model.inference import Inference, Said, together
from boneage_pl.reading.familiar import Familiar
from boneage_pl.reading.remember import familiar_of
from boneage_pl.run.checkpoint import read_trained
from boneage_pl.run.record import Record

View = Callable[[Pixels], Pixels]
_STEEPEST = 45  # degrees; our choice: a hand on its side is another picture


@dataclass
class Looked:
    """What one checkpoint makes of a batch.

    Args:
        said: the mean over the views.
        strange: [B], whether a picture lies outside what it knows; `None` where it cannot tell.
        sharpness: [B], whether it is finer or coarser; `None` where it cannot tell.
    """

    said: Said
    strange: NDArray[np.bool_] | None
    sharpness: NDArray[np.bool_] | None


class Member:
    """A trained checkpoint, ready to be asked.

    Args:
        path: of the checkpoint.
        views: ways that each picture is looked at beside as it is.
        device: see `Inference`.
        repeated: see `load`.

    Raises:
        BoneageError: see `load`.
    """

    def __init__(
        self, path: Path, views: Sequence[View] = (), device: str | None = None, repeated: Any = None
    ) -> None:
        self.path = path
        reader, checkpoint = read_trained(path, repeated)
        self.record: Record = checkpoint.record
        self.views = list(views)
        self.ask = Inference(reader, self.record.precision, device)
        self.familiar: Familiar | None = familiar_of(checkpoint, self.ask)

    @property
    def frame(self) -> Frame:
        """The square that it is shown."""
        return self.record.frame

    def look(self, pixels: Pixels, male: Sequence[bool], sizes: Sequence[tuple[int, int]]) -> Looked:
        """Answer a batch.

        Args:
            pixels: uint8 [B, side, side].
            male: whether each is of a boy.
            sizes: of their files, width and height.
        """
        familiar = self.familiar
        strange = sharpness = None
        if familiar and familiar.features:
            with Tap(self.ask.reader.network, familiar.layer) as tap:
                every = [self.ask(pixels, male)]
            strange = familiar.is_strange(tap.features.numpy())
        else:
            every = [self.ask(pixels, male)]
        if familiar:
            sharpness = ~familiar.as_fine(pixels, sizes, self.frame.fit)
        every += [self.ask(np.stack([view(one) for one in pixels]), male) for view in self.views]
        return Looked(together(every), strange, sharpness)


def views_of(named: Any) -> list[View]:
    """Return the ways that `views` names: `flip`, or degrees to turn by, or a list of both.

    Raises:
        BoneageError: it is something else.
    """
    listed = [] if named is None else [named] if isinstance(named, str | int | float) else list(named)
    found: list[View] = []
    for view in listed:
        if view == "flip":
            found.append(mirrored)
        elif isinstance(view, int | float) and not isinstance(view, bool) and 0 < abs(view) <= _STEEPEST:
            found.append(partial(rotated, degrees=float(view)))
        else:
            raise BoneageError(
                f"views={named}: it is flip, or degrees up to {_STEEPEST} to turn by, or a list of them, "
                "as in views=[flip,-5,5]."
            )
    return found
