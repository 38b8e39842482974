"""Where the page asks the model: one at a time, and with long lists letting others in between."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from threading import Lock

from PIL import Image

from boneage_pl.data.dicom import Tags
from boneage_pl.data.frame import Pixels
from boneage_pl.reading.answer import Question
from boneage_pl.reading.explain import Map, attribution
from boneage_pl.reading.model import BoneAge, Reading

ORIGINAL = 640  # pixels; our choice: the longest side of the picture that is shown beside the square
_AT_ONCE = 16  # our choice: pictures of a long list between which others are let in


@dataclass
class Looked:
    """A picture that was asked about, and what is kept of it while its page is open.

    Args:
        name: what its owner calls it.
        readings: a girl's and a boy's; or one that says why there is no answer.
        original: the picture as it was opened, reduced; a JPEG file's bytes.
        size: of the picture as it was opened, width and height.
        tags: of a DICOM file.
        maps: where the network looked, by `male`, once it was asked.
    """

    name: str
    readings: list[Reading]
    original: bytes = b""
    size: tuple[int, int] = (0, 0)
    tags: Tags | None = None
    maps: dict[bool, Map | None] = field(default_factory=dict)


class Desk:
    """A model that several people ask.

    Args:
        model: of one or several checkpoints; the first is asked where it looked.
        level: of its intervals.
    """

    def __init__(self, model: BoneAge, level: float) -> None:
        self.model, self.level = model, level
        self._lock = Lock()

    def look(self, path: Path, name: str) -> Looked:
        """Ask about a picture for both sexes: which it is may be said later."""
        with self._lock:
            readings = [_named(r, name) for r in self.model.readings([Question(path, "unknown")])]
        radiograph = readings[0].radiograph
        if radiograph is None:
            return Looked(name, readings)
        shown = radiograph.image.copy()
        shown.thumbnail((ORIGINAL, ORIGINAL))
        kept = [replace(reading, radiograph=None) for reading in readings]  # decoded, it may be large
        return Looked(name, kept, _jpeg(shown), radiograph.image.size, radiograph.tags)

    def where(self, looked: Looked, reading: Reading) -> Map | None:
        """Return where the network looked, see `attribution`."""
        male = reading.answer.male
        assert male is not None
        if male not in looked.maps:
            with self._lock:
                looked.maps[male] = attribution(self.model.members[0], self.seen(reading), male=male)
        return looked.maps[male]

    def seen(self, reading: Reading) -> Pixels:
        """Return what the first network saw."""
        return reading.pixels[self.model.members[0].frame]

    def many(self, asked: Iterable[Question]) -> Iterator[Reading]:
        """Yield the answers to a list."""
        coming = iter(asked)
        while part := list(islice(coming, _AT_ONCE)):
            with self._lock:
                answered = list(self.model.readings(part))
            for reading in answered:
                yield replace(reading, radiograph=None)


def _named(reading: Reading, name: str) -> Reading:
    return replace(reading, answer=replace(reading.answer, path=name))


def _jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
