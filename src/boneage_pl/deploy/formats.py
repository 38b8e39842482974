"""How each kind of export is written, and tried: what comes back wrong is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from boneage_pl.deploy.exported import Ask, Exported, described
from boneage_pl.deploy.measured import Measured, answers, check_cost, check_same, cost_of, measured, megabytes
from boneage_pl.deploy.onnx_file import STEM, describe, halve, open_onnx, quantise, write_onnx
from boneage_pl.deploy.torch_file import open_program, write_program
from boneage_pl.deploy.trial import Trial
from boneage_pl.reading.model import BoneAge
from boneage_pl.run.weights import write_weights


@dataclass
class Job:
    """An export that is being made.

    Args:
        model: that is exported.
        exported: the same as one network.
        reference: what PyTorch answers in float32.
        trial: the images that everything is tried on.
        precision: of the numbers.
        level: of the intervals.
        max_cost: months that a precision may cost.
        repeated: see `load`.
        tried: what has been tried so far.
    """

    model: BoneAge
    exported: Exported
    reference: Measured
    trial: Trial
    precision: str
    level: float
    max_cost: float
    repeated: Any
    tried: list[Measured]

    def measure(self, name: str, path: Path, ask: Ask) -> Measured:
        """Try what has been written."""
        self.tried.append(measured(name, ask, self.trial, megabytes(path)))
        return self.tried[-1]


def as_onnx(job: Job, path: Path) -> None:
    """Write an ONNX file."""
    whole = path if job.precision == "float32" else path.with_name(f"float32_{path.name}")
    write_onnx(job.exported, whole)
    describe(whole, described(job.model, job.level, "float32"))
    exact = job.measure("float32", whole, open_onnx(whole))
    check_same(exact, job.reference)
    if job.precision == "float32":
        return
    said = described(job.model, job.level, job.precision)
    if job.precision == "float16":
        halve(whole, path)
        describe(path, said)
        check_cost(job.measure("float16", path, open_onnx(path)), exact, job.max_cost)
        return
    known = answers(open_onnx(whole), job.trial.calibration, "asking about what calibrates")
    for name, stem in {"int8": 0, f"int8 but {STEM} first": STEM}.items():
        quantise(whole, path, job.trial.calibration, known, stem)
        describe(path, said)
        found = job.measure(name, path, open_onnx(path))
        if cost_of(found, exact) <= job.max_cost:
            return
    check_cost(found, exact, job.max_cost)


def as_program(job: Job, path: Path) -> None:
    """Write a program of PyTorch's."""
    write_program(job.exported, path, described(job.model, job.level, "float32"))
    check_same(job.measure("float32", path, open_program(path)), job.reference)


def as_weights(job: Job, path: Path) -> None:
    """Write weights to share, with their JSON file."""
    (member,) = job.model.members
    kind = torch.float16 if job.precision == "float16" else None
    known = member.familiar.plain() if member.familiar else None
    write_weights(path, member.ask.reader.network.state_dict(), member.record, known, kind)
    again = Exported(BoneAge.load(path, level=job.level, device="cpu", repeated=job.repeated))
    found = job.measure(job.precision, path, again.ask)
    if kind:
        check_cost(found, job.reference, job.max_cost)
    else:
        check_same(found, job.reference)


WRITERS = {"onnx": as_onnx, "torch_export": as_program, "weights": as_weights}
