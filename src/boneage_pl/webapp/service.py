"""Serve predictions one request at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from threading import Lock

from PIL import Image

from boneage_pl.data.images.dicom import DicomTags
from boneage_pl.data.images.resize import Pixels
from boneage_pl.prediction.gradcam import Heatmap, grad_cam
from boneage_pl.prediction.predictor import BoneAgePredictor
from boneage_pl.prediction.types import PredictionRequest, PredictionResult

ORIGINAL = 640  # pixels; our choice: the longest side of the picture that is shown beside the square
_IMAGES_PER_TURN = 16  # our choice: pictures of a long list between which others are let in


@dataclass
class SessionImage:
    """An uploaded image, and what is kept of it while its page is open.

    Args:
        name: what its owner calls it.
        readings: a girl's and a boy's; or one that says why there is no answer.
        original: the picture as it was opened, reduced; a JPEG file's bytes.
        size: of the picture as it was opened, width and height.
        tags: of a DICOM file.
        maps: Grad-CAM heatmaps by `male`, once computed.
    """

    name: str
    readings: list[PredictionResult]
    original: bytes = b""
    size: tuple[int, int] = (0, 0)
    tags: DicomTags | None = None
    maps: dict[bool, Heatmap | None] = field(default_factory=dict)


class PredictionService:
    """A model that several people ask.

    Args:
        model: of one or several checkpoints; Grad-CAM is of the first.
        level: of its intervals.
    """

    def __init__(self, model: BoneAgePredictor, level: float) -> None:
        self.model, self.level = model, level
        self._lock = Lock()

    def predict_one(self, path: Path, name: str) -> SessionImage:
        """Predict an image for both sexes: the sex may be entered later."""
        with self._lock:
            readings = [
                _with_name(r, name) for r in self.model.predict_iter([PredictionRequest(path, "unknown")])
            ]
        radiograph = readings[0].radiograph
        if radiograph is None:
            return SessionImage(name, readings)
        shown = radiograph.image.copy()
        shown.thumbnail((ORIGINAL, ORIGINAL))
        kept = [replace(reading, radiograph=None) for reading in readings]  # decoded, it may be large
        return SessionImage(name, kept, _encode_jpeg(shown), radiograph.image.size, radiograph.tags)

    def grad_cam(self, looked: SessionImage, reading: PredictionResult) -> Heatmap | None:
        """Return where the network looked, see `grad_cam`."""
        male = reading.prediction.male
        assert male is not None
        if male not in looked.maps:
            with self._lock:
                looked.maps[male] = grad_cam(self.model.members[0], self.has_gradcam(reading), male=male)
        return looked.maps[male]

    def has_gradcam(self, reading: PredictionResult) -> Pixels:
        """Return what the first network saw."""
        return reading.pixels[self.model.members[0].resize_spec]

    def predict_many(self, requests: Iterable[PredictionRequest]) -> Iterator[PredictionResult]:
        """Yield the answers to a list."""
        coming = iter(requests)
        while part := list(islice(coming, _IMAGES_PER_TURN)):
            with self._lock:
                results = list(self.model.predict_iter(part))
            for reading in results:
                yield replace(reading, radiograph=None)


def _with_name(reading: PredictionResult, name: str) -> PredictionResult:
    return replace(reading, prediction=replace(reading.prediction, path=name))


def _encode_jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
