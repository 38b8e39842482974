"""What an export answers and how fast, held against PyTorch."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneage_pl.deploy.exported import PredictFn
from boneage_pl.deploy.trial import ImageBatch, VerificationSet
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.progress import progress

PARITY_MONTHS = 0.05  # months; a float32 export that is off by more is not the model
BATCH = 16
_SECONDS = 0.1  # that each speed is measured, three times; the fastest counts


@dataclass
class ExportCheck:
    """One way of asking.

    Args:
        name: of it.
        months: float64 [N], its answers on the trial's images.
        megabytes: of its file.
        rate: images a second in batches of 16.
        latency: milliseconds for one image.
        errors: float64 [N], how far each answer is off in months; `None` where the ages are not known.
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
        costs = _bootstrap_mae_increase(self, reference)
        half = 1.96 * costs.std() / len(costs) ** 0.5
        cost = "" if self is reference else f"{costs.mean():+.3f} ± {half:.3f}"
        start = f"{self.name:<18}{self.megabytes:>8.1f}{self.rate:>10.1f}{self.latency:>9.1f}{mae:>9}"
        return f"{start}  {cost}".rstrip()


TABLE_HEAD = f"{'':<18}{'MB':>8}{'images/s':>10}{'ms/image':>9}{'MAE':>9}  cost, 95 % interval"


def predict_images(ask: PredictFn, pictures: ImageBatch, doing: str) -> NDArray[np.float64]:
    """Return the months that `ask` answers: float64 [N]."""
    parts = [slice(at, at + BATCH) for at in range(0, len(pictures), BATCH)]
    every = [ask(pictures.image[p], pictures.male[p]) for p in progress(parts, len(parts), doing, "batches")]
    return np.concatenate(every).astype(float)


def check_export(name: str, ask: PredictFn, trial: VerificationSet, megabytes: float) -> ExportCheck:
    """Ask about the trial's images, and measure how fast."""
    months = predict_images(ask, trial.images, f"asking {name}")
    off = None if trial.bone_age is None else np.abs(months - trial.bone_age)
    rate = BATCH / seconds_per_batch(ask, trial.images, BATCH)
    return ExportCheck(name, months, megabytes, rate, 1000 * seconds_per_batch(ask, trial.images, 1), off)


def seconds_per_batch(ask: PredictFn, pictures: ImageBatch, batch: int) -> float:
    """Return the seconds that a batch of so many images takes on this machine's CPU."""
    at = np.arange(batch) % len(pictures)
    image, male = pictures.image[at], pictures.male[at]
    ask(image, male)
    best = float("inf")
    for _ in range(3):
        start, times = time.perf_counter(), 0
        while times == 0 or time.perf_counter() - start < _SECONDS:
            ask(image, male)
            times += 1
        best = min(best, (time.perf_counter() - start) / times)
    return best


def assert_parity(found: ExportCheck, reference: ExportCheck) -> float:
    """Return the largest difference between answers in months.

    Raises:
        BoneAgeError: it is over 0.05, or an answer is no number.
    """
    if not np.isfinite(reference.months).all():
        raise BoneAgeError(
            "the network's answers are no numbers: its training diverged. Nothing was written."
        )
    largest = float(np.abs(found.months - reference.months).max())
    if not largest <= PARITY_MONTHS:
        raise BoneAgeError(
            f"{found.name} is up to {largest:.3f} months from PyTorch, and {PARITY_MONTHS} are allowed:\n"
            "nothing was written."
        )
    return largest


def mae_increase(found: ExportCheck, exact: ExportCheck) -> float:
    """Return what a precision costs: in months of MAE; without ages, how far answers move on average."""
    return float(_bootstrap_mae_increase(found, exact).mean())


def _bootstrap_mae_increase(found: ExportCheck, exact: ExportCheck) -> NDArray[np.float64]:
    if found.errors is None or exact.errors is None:
        return np.abs(found.months - exact.months)
    return found.errors - exact.errors


def assert_accuracy(found: ExportCheck, exact: ExportCheck, most: float) -> float:
    """Return `mae_increase`.

    Raises:
        BoneAgeError: it is over `most`.
    """
    cost = mae_increase(found, exact)
    if not cost <= most:
        raise BoneAgeError(
            f"{found.name} costs {cost:+.3f} months, and max_cost={most} are allowed: nothing was "
            "written.\nSay max_cost= if that is worth it to you, or leave precision=float32."
        )
    return cost


def megabytes(path: Path) -> float:
    """Return the size of a file."""
    return path.stat().st_size / 1e6
