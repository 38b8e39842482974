"""Export formats, precisions and output path."""

import os
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.runs import run_of, shortest_path
from boneage_pl.utils.files import expand_path


@dataclass(frozen=True)
class ExportFormat:
    """A kind of export.

    Args:
        name: as the option says it.
        suffix: of its file.
        precisions: that its numbers can have.
        takes_several: whether checkpoints can become one.
        extra_files: names of those that are written with it.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    takes_several: bool = True
    extra_files: tuple[str, ...] = ()

    def files(self, out: Path) -> list[Path]:
        """Return all that is written where `out` is the file."""
        return [out, *(out.with_name(name) for name in self.extra_files)]


MODEL_CARD = "model_card.md"
_FORMATS = (
    ExportFormat("onnx", ".onnx", ("float32", "float16", "int8")),
    ExportFormat("torch_export", ".pt2", ("float32",)),
    ExportFormat(
        "safetensors",
        ".safetensors",
        ("float32", "float16"),
        takes_several=False,
        extra_files=(MODEL_CARD,),
    ),
    ExportFormat("model_card", ".md", ("float32",), takes_several=False),
)
EXPORT_FORMATS = {kind.name: kind for kind in _FORMATS}


def resolve_format(config: DictConfig, count: int) -> ExportFormat:
    """Return what `format` names.

    Args:
        config: of the export.
        count: of the checkpoints.

    Raises:
        BoneAgeError: there is no such format, it has no such precision, or is of one checkpoint alone.
    """
    kind = EXPORT_FORMATS.get(str(config.format))
    if kind is None:
        raise BoneAgeError(f"format={config.format}: there are {', '.join(EXPORT_FORMATS)}.")
    if config.precision not in kind.precisions:
        there = ", ".join(kind.precisions)
        raise BoneAgeError(f"precision={config.precision}: format={kind.name} has {there}.")
    if count > 1 and not kind.takes_several:
        raise BoneAgeError(
            f"format={kind.name} is of one checkpoint, and ckpt names {count}: export each by itself."
        )
    return kind


def output_path(config: DictConfig, kind: ExportFormat, checkpoint: Path, experiment: str) -> Path:
    """Return the file that is to be written: `out`, or one in the folder `export/` of the checkpoint's run.

    Raises:
        BoneAgeError: a name that another program would not take it under, or something is there already.
    """
    if config.out is not None:
        out = expand_path(str(config.out))
        if out.suffix != kind.suffix:
            raise BoneAgeError(f"out={config.out}: a file of format={kind.name} ends with {kind.suffix}.")
    else:
        run = run_of(checkpoint)
        beside = (run / ".hydra").is_dir() and os.access(run, os.W_OK)
        folder = shortest_path(run / "export") if beside else Path(config.output_dir) / "exports"
        suffix = "" if config.precision == "float32" else f"_{config.precision}"
        folder = folder / f"safetensors{suffix}" if kind.name == "safetensors" else folder
        name = Path(MODEL_CARD).stem if kind.name == "model_card" else f"{Path(experiment).name}{suffix}"
        out = folder / f"{name}{kind.suffix}"
    if there := [file for file in kind.files(out) if file.exists()]:
        raise BoneAgeError(
            f"{there[0]} is there already, and nothing is written over.\nGive out= another name."
        )
    return out
