"""What an export can be, and where it goes. Imports no torch: a wrong option is answered at once."""

import os
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from boneage_pl.errors import BoneageError
from boneage_pl.machine.home import path_of
from boneage_pl.run.runs import run_of, shortest


@dataclass(frozen=True)
class Kind:
    """A kind of export.

    Args:
        name: as the option says it.
        suffix: of its file.
        precisions: that its numbers can have.
        several: whether checkpoints can become one.
        beside: names of the files that are written with it.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    several: bool = True
    beside: tuple[str, ...] = ()

    def files(self, out: Path) -> list[Path]:
        """Return all that is written where `out` is the file."""
        return [out, *(out.with_name(name.format(stem=out.stem)) for name in self.beside)]


CARD = "card.md"
_KINDS = (
    Kind("onnx", ".onnx", ("float32", "float16", "int8")),
    Kind("torch_export", ".pt2", ("float32",)),
    Kind("weights", ".safetensors", ("float32", "float16"), several=False, beside=("{stem}.json", CARD)),
    Kind("card", ".md", ("float32",), several=False),
)
KINDS = {kind.name: kind for kind in _KINDS}


def chosen(config: DictConfig, count: int) -> Kind:
    """Return what `format` names.

    Args:
        config: of the export.
        count: of the checkpoints.

    Raises:
        BoneageError: there is no such format, it has no such precision, or is of one checkpoint alone.
    """
    kind = KINDS.get(str(config.format))
    if kind is None:
        raise BoneageError(f"format={config.format}: there are {', '.join(KINDS)}.")
    if config.precision not in kind.precisions:
        there = ", ".join(kind.precisions)
        raise BoneageError(f"precision={config.precision}: format={kind.name} has {there}.")
    if count == 0:
        raise BoneageError("ckpt=[]: name at least one checkpoint.")
    if count > 1 and not kind.several:
        raise BoneageError(
            f"format={kind.name} is of one checkpoint, and ckpt names {count}: export each by itself."
        )
    return kind


def place_of(config: DictConfig, kind: Kind, checkpoint: Path, experiment: str) -> Path:
    """Return the file that is to be written: `out`, or one in the folder `export/` of the checkpoint's run.

    Raises:
        BoneageError: a name that another program would not take it under, or something is there already.
    """
    if config.out is not None:
        out = path_of(str(config.out))
        if out.suffix != kind.suffix:
            raise BoneageError(f"out={config.out}: a file of format={kind.name} ends with {kind.suffix}.")
    else:
        run = run_of(checkpoint)
        beside = (run / ".hydra").is_dir() and os.access(run, os.W_OK)
        folder = shortest(run / "export") if beside else Path(config.outputs) / "exports"
        suffix = "" if config.precision == "float32" else f"_{config.precision}"
        folder = folder / f"weights{suffix}" if kind.name == "weights" else folder
        name = Path(CARD).stem if kind.name == "card" else f"{Path(experiment).name}{suffix}"
        out = folder / f"{name}{kind.suffix}"
    if there := [file for file in kind.files(out) if file.exists()]:
        raise BoneageError(
            f"{there[0]} is there already, and nothing is written over.\nGive out= another name."
        )
    return out
