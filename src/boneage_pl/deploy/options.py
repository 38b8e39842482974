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
    """An export format.

    Args:
        name: value of `format=`.
        suffix: file suffix.
        precisions: supported dtypes of the weights.
        takes_several: whether several checkpoints can be exported as one ensemble.
        extra_files: names of additional files.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    takes_several: bool = True
    extra_files: tuple[str, ...] = ()

    def files(self, out: Path) -> list[Path]:
        """Return all files that are written with `out`."""
        return [out, *(out.with_name(name) for name in self.extra_files)]


MODEL_CARD = "model_card.md"
_FORMATS = (
    ExportFormat("onnx", ".onnx", ("float32", "float16", "int8")),
    ExportFormat("torch_export", ".pt2", ("float32",)),
    ExportFormat(
        "safetensors", ".safetensors", ("float32", "float16"), takes_several=False, extra_files=(MODEL_CARD,)
    ),
    ExportFormat("model_card", ".md", ("float32",), takes_several=False),
)
EXPORT_FORMATS = {kind.name: kind for kind in _FORMATS}


def resolve_format(config: DictConfig, count: int) -> ExportFormat:
    """Return the format that `format=` names.

    Args:
        config: the export's configuration.
        count: number of checkpoints.

    Raises:
        BoneAgeError: unknown format, unsupported precision, or too many checkpoints.
    """
    kind = EXPORT_FORMATS.get(str(config.format))
    if kind is None:
        raise BoneAgeError(f"format={config.format}: there are {', '.join(EXPORT_FORMATS)}.")
    if config.precision not in kind.precisions:
        supported = ", ".join(kind.precisions)
        raise BoneAgeError(f"precision={config.precision}: format={kind.name} supports {supported}.")
    if count > 1 and not kind.takes_several:
        raise BoneAgeError(
            f"format={kind.name} takes one checkpoint, but ckpt names {count}: export each separately."
        )
    return kind


def output_path(config: DictConfig, kind: ExportFormat, checkpoint: Path, experiment: str) -> Path:
    """Return the output file: `out`, or one in the folder `export/` of the checkpoint's run.

    Raises:
        BoneAgeError: wrong suffix, or the file exists.
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
    if existing := [file for file in kind.files(out) if file.exists()]:
        raise BoneAgeError(f"{existing[0]} exists already and is not overwritten.\nGive out= another name.")
    return out
