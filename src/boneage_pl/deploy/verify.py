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

PARITY_MONTHS = 0.05  # months; a float32 export that is off by more is not the model
BATCH = 16
_SECONDS = 0.1  # that each speed is measured, three times; the fastest counts


@dataclass
class ExportCheck:
    """The check of one export.

    Args:
        name: of it.
        months: float64 [N], its predictions on the trial's images.
        megabytes: of its file.
        rate: images a second in batches of 16.
        latency: milliseconds for one image.
        errors: float64 [N], absolute, in months; `None` where the ages are not known.
    """

    name: str
    months: NDArray[np.float64]
    megabytes: float
    rate: float
    latency: float
    errors: NDArray[np.float64] | None

    def row(self, reference: "ExportCheck") -> str:
        """Return it as a line under `TABLE_HEAD`, with what it costs against `reference`."""
        mae = "–" if self.errors is None else f"{self.errors.mean():.3f}"
        costs = _costs(self, reference)
        half = 1.96 * costs.std() / len(costs) ** 0.5
        cost = "" if self is reference else f"{costs.mean():+.3f} ± {half:.3f}"
        start = f"{self.name:<18}{self.megabytes:>8.1f}{self.rate:>10.1f}{self.latency:>9.1f}{mae:>9}"
        return f"{start}  {cost}".rstrip()


TABLE_HEAD = f"{'':<18}{'MB':>8}{'images/s':>10}{'ms/image':>9}{'MAE':>9}  cost, 95 % interval"


def predict_images(predict: PredictFn, images: ImageBatch, doing: str) -> NDArray[np.float64]:
    """Return the months that `predict` returns: float64 [N]."""
    parts = [slice(at, at + BATCH) for at in range(0, len(images), BATCH)]
    every = [predict(images.image[p], images.male[p]) for p in progress(parts, len(parts), doing, "batches")]
    return np.concatenate(every).astype(float)


def check_export(name: str, predict: PredictFn, trial: VerificationSet, megabytes: float) -> ExportCheck:
    """Predict the trial's images, and measure the speed."""
    months = predict_images(predict, trial.images, f"predicting with {name}")
    off = None if trial.bone_age is None else np.abs(months - trial.bone_age)
    rate = BATCH / seconds_per_batch(predict, trial.images, BATCH)
    return ExportCheck(name, months, megabytes, rate, 1000 * seconds_per_batch(predict, trial.images, 1), off)


def seconds_per_batch(predict: PredictFn, images: ImageBatch, batch: int) -> float:
    """Return the seconds that a batch of so many images takes on this machine's CPU."""
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
        BoneAgeError: it is over 0.05, or a prediction is no number.
    """
    if not np.isfinite(reference.months).all():
        raise BoneAgeError(
            "the network's predictions are no numbers: its training diverged. Nothing was written."
        )
    largest = float(np.abs(check.months - reference.months).max())
    if not largest <= PARITY_MONTHS:
        raise BoneAgeError(
            f"{check.name} is up to {largest:.3f} months from PyTorch, and {PARITY_MONTHS} are allowed:\n"
            "nothing was written."
        )
    return largest


def mae_increase(check: ExportCheck, exact: ExportCheck) -> float:
    """Return what a precision costs: in months of MAE; without ages, how far predictions move on average."""
    return float(_costs(check, exact).mean())


def _costs(check: ExportCheck, exact: ExportCheck) -> NDArray[np.float64]:
    if check.errors is None or exact.errors is None:
        return np.abs(check.months - exact.months)
    return check.errors - exact.errors


def assert_accuracy(check: ExportCheck, exact: ExportCheck, most: float) -> float:
    """Return `mae_increase`.

    Raises:
        BoneAgeError: it is over `most`.
    """
    cost = mae_increase(check, exact)
    if not cost <= most:
        raise BoneAgeError(
            f"{check.name} costs {cost:+.3f} months, and max_mae_increase={most} are allowed: nothing was "
            "written.\nSay max_mae_increase= if that is worth it to you, or leave precision=float32."
        )
    return cost


def megabytes(path: Path) -> float:
    """Return the size of a file."""
    return path.stat().st_size / 1e6
