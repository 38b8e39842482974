"""Verify an export: parity, accuracy and speed."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneage_pl.deploy.export_module import PredictFn
from boneage_pl.deploy.verification_set import ImageBatch, VerificationSet
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.progress import progress

PARITY_MONTHS = 0.05  # largest difference of a float32 export from PyTorch
BATCH = 16
_SECONDS = 0.1  # per speed measurement; the best of three counts


@dataclass
class ExportCheck:
    """The check of one export.

    Args:
        name: of the export.
        months: float64 [N], predictions for the verification images.
        megabytes: size of the file.
        rate: images/s in batches of 16.
        latency: milliseconds for one image.
        errors: float64 [N], absolute errors in months; `None` if the ages are unknown.
    """

    name: str
    months: NDArray[np.float64]
    megabytes: float
    rate: float
    latency: float
    errors: NDArray[np.float64] | None

    def row(self, reference: "ExportCheck") -> str:
        """Format a line under `TABLE_HEAD`, with the MAE increase over `reference`."""
        mae = "–" if self.errors is None else f"{self.errors.mean():.3f}"
        increases = _mae_increases(self, reference)
        half = 1.96 * increases.std() / len(increases) ** 0.5
        increase = "" if self is reference else f"{increases.mean():+.3f} ± {half:.3f}"
        start = f"{self.name:<18}{self.megabytes:>8.1f}{self.rate:>10.1f}{self.latency:>9.1f}{mae:>9}"
        return f"{start}  {increase}".rstrip()


TABLE_HEAD = f"{'':<18}{'MB':>8}{'images/s':>10}{'ms/image':>9}{'MAE':>9}  increase, 95 % interval"


def predict_images(predict: PredictFn, images: ImageBatch, doing: str) -> NDArray[np.float64]:
    """Predict images in batches: float64 [N], months."""
    parts = [slice(at, at + BATCH) for at in range(0, len(images), BATCH)]
    months = [predict(images.image[p], images.male[p]) for p in progress(parts, len(parts), doing, "batches")]
    return np.concatenate(months).astype(float)


def check_export(
    name: str, predict: PredictFn, verification: VerificationSet, megabytes: float
) -> ExportCheck:
    """Predict the verification images and measure the speed."""
    months = predict_images(predict, verification.images, f"predicting with {name}")
    errors = None if verification.bone_age is None else np.abs(months - verification.bone_age)
    rate = BATCH / seconds_per_batch(predict, verification.images, BATCH)
    return ExportCheck(
        name, months, megabytes, rate, 1000 * seconds_per_batch(predict, verification.images, 1), errors
    )


def seconds_per_batch(predict: PredictFn, images: ImageBatch, batch: int) -> float:
    """Measure the seconds per batch of `batch` images on the CPU."""
    at = np.arange(batch) % len(images)
    image, male = images.image[at], images.male[at]
    predict(image, male)
    best = float("inf")
    for _ in range(3):
        start, times = time.perf_counter(), 0
        while times == 0 or time.perf_counter() - start < _SECONDS:
            predict(image, male)
            times += 1
        best = min(best, (time.perf_counter() - start) / times)
    return best


def assert_parity(check: ExportCheck, reference: ExportCheck) -> float:
    """Return the largest difference between predictions in months.

    Raises:
        BoneAgeError: it exceeds 0.05, or a prediction is not finite.
    """
    if not np.isfinite(reference.months).all():
        raise BoneAgeError("the predictions are not finite: the training diverged. Nothing was written.")
    largest = float(np.abs(check.months - reference.months).max())
    if not largest <= PARITY_MONTHS:
        raise BoneAgeError(
            f"{check.name} differs from PyTorch by up to {largest:.3f} months (limit {PARITY_MONTHS}).\n"
            "Nothing was written."
        )
    return largest


def mae_increase(check: ExportCheck, exact: ExportCheck) -> float:
    """Return the increase of the MAE in months; without ages, the mean absolute change of predictions."""
    return float(_mae_increases(check, exact).mean())


def _mae_increases(check: ExportCheck, exact: ExportCheck) -> NDArray[np.float64]:
    if check.errors is None or exact.errors is None:
        return np.abs(check.months - exact.months)
    return check.errors - exact.errors


def assert_accuracy(check: ExportCheck, exact: ExportCheck, limit: float) -> float:
    """Return `mae_increase`.

    Raises:
        BoneAgeError: it exceeds `limit`.
    """
    increase = mae_increase(check, exact)
    if not increase <= limit:
        raise BoneAgeError(
            f"{check.name} increases the MAE by {increase:+.3f} months (max_mae_increase={limit}).\n"
            "Nothing was written. Raise max_mae_increase= if that is acceptable, or use precision=float32."
        )
    return increase


def megabytes(path: Path) -> float:
    """Return the size of a file in MB."""
    return path.stat().st_size / 1e6
