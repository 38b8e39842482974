"""One model for all requests: those that wait together share batches."""

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from PIL import Image

from boneage_pl.data.images.dicom import DicomTags
from boneage_pl.data.images.resize import Pixels
from boneage_pl.prediction.gradcam import Heatmap, grad_cam
from boneage_pl.prediction.predictor import BoneAgePredictor
from boneage_pl.prediction.types import PredictionRequest, PredictionResult

ORIGINAL = 640  # pixels; our choice: the longest side of the image that is shown beside the square
_IMAGES_PER_TURN = 16  # our choice: images of a long list between which others are let in
_BATCH = 32  # images that are predicted together at most
_LINGER = 0.15  # seconds; our choice: a batch waits so long for as many jobs as the last two had


@dataclass
class SessionImage:
    """An uploaded image, and what is kept of it while its page is open.

    Args:
        name: what its owner calls it.
        results: a girl's and a boy's; or one that says why there is none.
        original: the image as it was opened, reduced; a JPEG file's bytes.
        size: of the image as it was opened, width and height.
        tags: of a DICOM file.
        maps: Grad-CAM heatmaps by `male`, once computed.
    """

    name: str
    results: list[PredictionResult]
    original: bytes = b""
    size: tuple[int, int] = (0, 0)
    tags: DicomTags | None = None
    maps: dict[bool, Heatmap | None] = field(default_factory=dict)


@dataclass
class _Job:
    requests: Sequence[PredictionRequest]
    done: "Future[list[PredictionResult]]" = field(default_factory=Future)


class PredictionService:
    """A model that several clients use at once.

    One thread predicts; while it does, requests wait, and those that wait together are predicted together.

    Args:
        model: of one or several checkpoints; Grad-CAM is of the first.
        level: of its intervals.
    """

    def __init__(self, model: BoneAgePredictor, level: float) -> None:
        self.model, self.level = model, level
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = Lock()  # of the model: predictions and Grad-CAM take turns
        Thread(target=self._work, daemon=True, name="predictions").start()

    def predict(self, requests: Sequence[PredictionRequest]) -> list[PredictionResult]:
        """Return the results of requests, in order; two of an image whose sex is `unknown`."""
        job = _Job(requests)
        self._jobs.put(job)
        return job.done.result()

    def _work(self) -> None:
        sizes = deque([1, 1], maxlen=2)  # of the last batches, in jobs
        while True:
            jobs = [self._jobs.get()]
            self._run(jobs, self._arriving(jobs, max(sizes)))
            sizes.append(len(jobs))

    def _arriving(self, jobs: list[_Job], expected: int) -> Iterator[PredictionRequest]:
        """Yield the requests of a job, and of those that arrive meanwhile, which are added to `jobs`.

        Clients that were served together send their next requests together: while the first are decoded, as
        many as before are waited for.
        """
        yield from jobs[0].requests
        until = time.monotonic() + _LINGER
        while sum(len(job.requests) for job in jobs) < _BATCH:
            wait = until - time.monotonic() if len(jobs) < expected else 0
            try:
                jobs.append(self._jobs.get(timeout=max(wait, 0)))
            except Empty:
                return
            yield from jobs[-1].requests

    def _run(self, jobs: list[_Job], requests: Iterable[PredictionRequest]) -> None:
        results: defaultdict[int, list[PredictionResult]] = defaultdict(list)
        try:
            with self._lock:
                for result in self.model.predict_iter(requests):
                    results[id(result.request)].append(result)
        # raised where the call waits; a decoder's panic, too: this thread goes on
        except BaseException as error:
            if len(jobs) > 1:  # one of them is at fault, and the others are not
                for job in jobs:
                    self._run([job], job.requests)
            else:
                failed = error if isinstance(error, Exception) else RuntimeError(repr(error))
                jobs[0].done.set_exception(failed)
            return
        for job in jobs:
            job.done.set_result([result for r in job.requests for result in results[id(r)]])

    def predict_one(self, path: Path, name: str) -> SessionImage:
        """Predict an image for both sexes: the sex may be entered later."""
        results = [_with_name(r, name) for r in self.predict([PredictionRequest(path, "unknown")])]
        radiograph = results[0].radiograph
        if radiograph is None:
            return SessionImage(name, results)
        shown = radiograph.image.copy()
        shown.thumbnail((ORIGINAL, ORIGINAL))
        kept = [replace(result, radiograph=None) for result in results]  # decoded, it may be large
        return SessionImage(name, kept, _encode_jpeg(shown), radiograph.image.size, radiograph.tags)

    def predict_many(self, requests: Iterable[PredictionRequest]) -> Iterator[PredictionResult]:
        """Yield the results of a long list; others have their turns between its parts."""
        coming = iter(requests)
        while part := list(islice(coming, _IMAGES_PER_TURN)):
            for result in self.predict(part):
                yield replace(result, radiograph=None)

    def grad_cam(self, result: PredictionResult) -> Heatmap | None:
        """Return the first network's heatmap, see `grad_cam`."""
        assert result.prediction.male is not None
        with self._lock:
            return grad_cam(self.model.members[0], self.pixels(result), male=result.prediction.male)

    def cached_grad_cam(self, session: SessionImage, result: PredictionResult) -> Heatmap | None:
        """Return the same for an image that is kept."""
        male = bool(result.prediction.male)
        if male not in session.maps:
            session.maps[male] = self.grad_cam(result)
        return session.maps[male]

    def pixels(self, result: PredictionResult) -> Pixels:
        """Return what the first network saw, uint8 [side, side]."""
        return result.pixels[self.model.members[0].resize_spec]


def _with_name(result: PredictionResult, name: str) -> PredictionResult:
    return replace(result, prediction=replace(result.prediction, path=name))


def _encode_jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
