"""The command that says how old the bones on radiographs are."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.cli.entry import start
from boneage_pl.cli.numbers import check_number
from boneage_pl.errors import BoneageError
from boneage_pl.machine.home import path_of
from boneage_pl.reading.output import output_of
from boneage_pl.reading.sources import questions

if TYPE_CHECKING:
    from boneage_pl.reading.model import BoneAge, Reading

NOT_ALL = 3  # the exit status where some were not answered
FORMATS = ("csv", "sr")


def predict(config: DictConfig) -> None:
    """Ask `ckpt` about `images`, and print or write an answer for each as it comes.

    Raises:
        BoneageError: an option that cannot be right, nothing to be asked about, or a checkpoint that cannot
            be read.
        SystemExit: with 3 where some of the images were not answered.
    """
    if config.format not in FORMATS:
        raise BoneageError(f"format={config.format}: there are {', '.join(FORMATS)}.")
    check_number("batch_size", config.batch_size, 1)
    asked = questions(_listed(config.images), config.sex)
    with output_of(config.out and path_of(str(config.out)), config.level) as output:
        from boneage_pl.machine.hardware import keep_freed_memory, on_gpu
        from boneage_pl.reading.model import BoneAge  # imports torch

        if not on_gpu("auto"):
            keep_freed_memory()
        views = config.views
        model = BoneAge.load(
            _listed(config.ckpt),
            level=config.level,
            views=list(views) if isinstance(views, ListConfig) else views,
            outputs=config.outputs,
            repeated=OmegaConf.to_container(config, resolve=False),
        )
        further = _further(config, model)
        for reading in output.counted(model.readings(asked, config.batch_size)):
            for write in further if reading.answer.months is not None else ():
                try:
                    write(reading)
                except BoneageError as error:  # of this image; the others go on
                    reading.answer.error = str(error)
            output.write(reading.answer)
    if output.unanswered:
        sys.exit(NOT_ALL)


def _further(config: DictConfig, model: "BoneAge") -> list[Callable[["Reading"], object]]:
    """Return what is written of each answer beside its row."""
    first = model.members[0]
    writers: list[Callable[[Reading], object]] = []
    if config.explain:
        from boneage_pl.reading.explain import Explainer

        explainer = Explainer(path_of(str(config.explain)), first)
        writers.append(lambda reading: explainer.write(reading.answer, reading.pixels[first.frame]))
    if config.format == "sr":
        from boneage_pl.reading.structured_report import needs_highdicom, write_report

        needs_highdicom()
        name, identify = first.record.experiment, bool(config.identify)
        writers.append(lambda reading: write_report(reading.answer, name, config.level, identify=identify))
    return writers


def _listed(named: object) -> list[str]:
    return [str(name) for name in named] if isinstance(named, ListConfig) else [str(named)]


if __name__ == "__main__":
    start(predict, "predict")
