"""Prediction service: concurrent requests share batches of one model."""

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
from boneage_pl.prediction.gradcam import Explanation, grad_cam
from boneage_pl.prediction.predictor import BoneAgePredictor
from boneage_pl.prediction.types import PredictionRequest, PredictionResult

ORIGINAL = 640  # pixels; our choice: longest side of the displayed original
_IMAGES_PER_TURN = 16  # our choice: images of a long list before other requests get a turn
_MAX_BATCH = 32  # images
_MAX_WAIT = 0.15  # seconds; our choice: for a batch to get as many jobs as the last two had


@dataclass
class SessionImage:
    """An uploaded image with its predictions, stored while its page is open.

    Args:
        name: original file name.
        results: predictions for a girl and for a boy, or one with an error.
        original: the decoded image, reduced; bytes of a JPEG file.
        size: width and height of the decoded image, pixels.
        tags: of a DICOM file.
        explanations: computed by Grad-CAM, by `male`.
    """

    name: str
    results: list[PredictionResult]
    original: bytes = b""
    size: tuple[int, int] = (0, 0)
    tags: DicomTags | None = None
    explanations: dict[bool, Explanation] = field(default_factory=dict)


@dataclass
class _Job:
    requests: Sequence[PredictionRequest]
    done: "Future[list[PredictionResult]]" = field(default_factory=Future)


class PredictionService:
    """A model shared by concurrent clients.

    One thread predicts; requests that queue up meanwhile form the next batch.

    Args:
        model: one checkpoint or several; Grad-CAM uses the first.
        level: coverage of the prediction intervals.
    """

    def __init__(self, model: BoneAgePredictor, level: float) -> None:
        self.model, self.level = model, level
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = Lock()  # predictions and Grad-CAM alternate
        Thread(target=self._work, daemon=True, name="predictions").start()

    def predict(self, requests: Sequence[PredictionRequest]) -> list[PredictionResult]:
        """Return the results of requests, in order; two for an image of `unknown` sex."""
        job = _Job(requests)
        self._jobs.put(job)
        return job.done.result()

    def _work(self) -> None:
        sizes = deque([1, 1], maxlen=2)  # jobs in the last two batches
        while True:
            jobs = [self._jobs.get()]
            self._run(jobs, self._arriving(jobs, max(sizes)))
            sizes.append(len(jobs))

    def _arriving(self, jobs: list[_Job], expected: int) -> Iterator[PredictionRequest]:
        """Yield the requests of a job and of jobs that arrive meanwhile, which are appended to `jobs`.

        Clients that shared a batch send their next requests at about the same time, so this waits for as many
        jobs as the last batches had.
        """
        yield from jobs[0].requests
        deadline = time.monotonic() + _MAX_WAIT
        while sum(len(job.requests) for job in jobs) < _MAX_BATCH:
            wait = deadline - time.monotonic() if len(jobs) < expected else 0
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
        # raised in the waiting caller; even a decoder's panic must not end this thread
        except BaseException as error:
            if len(jobs) > 1:  # only one of them is at fault
                for job in jobs:
                    self._run([job], job.requests)
            else:
                failed = error if isinstance(error, Exception) else RuntimeError(repr(error))
                jobs[0].done.set_exception(failed)
            return
        for job in jobs:
            job.done.set_result([result for r in job.requests for result in results[id(r)]])

    def predict_one(self, path: Path, name: str) -> SessionImage:
        """Predict an image for both sexes: the sex may be chosen later."""
        results = [_with_name(r, name) for r in self.predict([PredictionRequest(path, "unknown")])]
        radiograph = results[0].radiograph
        if radiograph is None:
            return SessionImage(name, results)
        thumbnail = radiograph.image.copy()
        thumbnail.thumbnail((ORIGINAL, ORIGINAL))
        results = [replace(result, radiograph=None) for result in results]  # decoded images are large
        return SessionImage(name, results, _encode_jpeg(thumbnail), radiograph.image.size, radiograph.tags)

    def predict_many(self, requests: Iterable[PredictionRequest]) -> Iterator[PredictionResult]:
        """Yield the results of a long list, in chunks between which other requests get their turn."""
        iterator = iter(requests)
        while chunk := list(islice(iterator, _IMAGES_PER_TURN)):
            for result in self.predict(chunk):
                yield replace(result, radiograph=None)

    def grad_cam(self, result: PredictionResult) -> Explanation:
        """Explain a prediction by the first network, see `grad_cam`."""
        assert result.prediction.male is not None
        with self._lock:
            return grad_cam(self.model.members[0], self.pixels(result), male=result.prediction.male)

    def cached_grad_cam(self, session: SessionImage, result: PredictionResult) -> Explanation:
        """Return the same for a stored image, computed once."""
        male = bool(result.prediction.male)
        if male not in session.explanations:
            session.explanations[male] = self.grad_cam(result)
        return session.explanations[male]

    def pixels(self, result: PredictionResult) -> Pixels:
        """Return the resized image of the first network, uint8 [side, side]."""
        return result.pixels[self.model.members[0].resize_spec]


def _with_name(result: PredictionResult, name: str) -> PredictionResult:
    return replace(result, prediction=replace(result.prediction, path=name))


def _encode_jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
