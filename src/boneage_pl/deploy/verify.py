"""Verify an export on real images: parity, accuracy and speed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from boneage_pl.cli.overrides import as_list
from boneage_pl.data.images.resize import Pixels
from boneage_pl.deploy.export_module import PredictFn
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.eval_data import select_evaluation_set
from boneage_pl.prediction.ensemble import EnsembleMember
from boneage_pl.prediction.inputs import expand_inputs
from boneage_pl.prediction.loading import load_images
from boneage_pl.training.checkpoint import Checkpoint
from boneage_pl.utils.processes import cores
from boneage_pl.utils.progress import progress

_MIN_IMAGES = 2  # images that something is tried on
NUM_CALIBRATION = 200  # images that ranges are taken from; our choice: see docs/EXPORT.md


@dataclass
class ImageBatch:
    """Images in a network's square.

    Args:
        image: uint8 [N, 1, side, side].
        male: float32 [N].
    """

    image: NDArray[np.uint8]
    male: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.image)


@dataclass
class VerificationSet:
    """What an export is tried on.

    Args:
        description: what they are.
        images: to predict.
        calibration: others, which a conversion may look at: it is not measured on what it was fitted to.
        bone_age: float64 [N] in months; `None` where it is not known.
        stored: float64 [N], validation predictions in months; `None` likewise.
    """

    description: str
    images: ImageBatch
    calibration: ImageBatch
    bone_age: NDArray[np.float64] | None = None
    stored: NDArray[np.float64] | None = None


def build_verification_set(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    """Return the images that `verify_images` names, or the first checkpoint's validation images.

    Args:
        config: of the export.
        members: the checkpoints, which are all shown one square.

    Raises:
        BoneAgeError: they are not there, or cannot be read.
    """
    if config.verify_images is not None:
        return _from_files(config, members[0])
    try:
        return _from_validation(config, members)
    except BoneAgeError as error:
        raise BoneAgeError(
            f"{error}\nAn export is tried on real images before it is written: data.root=<folder>\n"
            "says where the checkpoint's are now, or verify_images=<files> names others."
        ) from error


def _from_validation(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    every = [Checkpoint(member.path, {}, member.metadata) for member in members]
    options = DictConfig({"data": config.data, "subset": "validation", "leakage": "allow"})
    dataset = select_evaluation_set(options, every[:1], every[1:])
    record, frame = members[0].metadata, members[0].resize_spec
    rows, words = dataset.rows.drop_duplicates("id"), "of its validation images"
    # an image that validated the first may have trained another, or itself under the published protocol
    unseen = rows[~rows["id"].isin(dataset.seen)]
    if len(unseen) < _MIN_IMAGES:
        words = f"{words}, trained on too, so that their MAE is flattered"
    else:
        rows = unseen
    rows = rows.iloc[_evenly_spaced(len(rows), config.verify_count)]
    of_id = dataset.table.drop_duplicates("id").set_index("id")
    train = [i for i in dict.fromkeys(record.split["train"]) if i in of_id.index]
    train = [train[at] for at in _evenly_spaced(len(train), NUM_CALIBRATION)]
    read = dataset.stores[frame].read
    predicted = dict(zip(record.validation["id"], record.validation["predicted"], strict=True))
    ids = rows["id"].tolist()
    there = len(members) == 1 and all(i in predicted for i in ids)
    return VerificationSet(
        description=f"{len(ids)} {words}",
        images=ImageBatch(read(ids)[:, None], rows["male"].to_numpy(np.float32)),
        calibration=ImageBatch(read(train)[:, None], of_id.loc[train, "male"].to_numpy(np.float32)),
        bone_age=rows["bone_age"].to_numpy(float),
        stored=np.array([predicted[i] for i in ids], float) if there else None,
    )


def _from_files(config: DictConfig, member: EnsembleMember) -> VerificationSet:
    frame, levels = member.resize_spec, member.metadata.bit_depths
    loaded, refused = [], []
    requests = (replace(one, male=False) for one in expand_inputs(as_list(config.verify_images)))
    for result in load_images(requests, [frame], levels, cores()):
        if result.prediction.error:
            refused.append(f"{result.request.path}: {result.prediction.error}")
            continue
        loaded.append(result.pixels[frame])
        if len(loaded) == 2 * config.verify_count:
            break
    if len(loaded) < 2:
        why = f"\n{refused[0]}" if refused else ""
        raise BoneAgeError(
            f"verify_images={config.verify_images}: {len(loaded)} can be read, and two are needed.{why}"
        )
    verification, calibration = (_as_both_sexes(loaded[start::2]) for start in (0, 1))
    words = f"{len(loaded[::2])} of the images that verify_images names, as of a girl and of a boy"
    return VerificationSet(words, verification, calibration)


def _as_both_sexes(images: list[Pixels]) -> ImageBatch:
    """Return images as of girls and again as of boys: a prediction is only compared with itself."""
    return ImageBatch(np.stack(images * 2)[:, None], np.repeat([0, 1], len(images)).astype(np.float32))


def _evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most so many places among `count`, evenly spread: a split's rows come group by group."""
    places: Any = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return list(dict.fromkeys(places.tolist()))


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
