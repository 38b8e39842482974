"""What a checkpoint knows of its images: learned at the end of its training, or once afterwards."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from boneage_pl.data.depth import bits
from boneage_pl.data.frame import Pixels
from boneage_pl.data.images import FORMATS, is_wide, read_depth, read_radiograph
from boneage_pl.data.place import Place
from boneage_pl.errors import BoneageError, first_line
from boneage_pl.machine.progress import progress
from boneage_pl.machine.whole import replacing
from boneage_pl.model.inference import Inference
from boneage_pl.reading.familiar import MOST, Familiar, detail_of, learn
from boneage_pl.run.checkpoint import Checkpoint, read_trained

log = logging.getLogger(__name__)

Read = Callable[[Sequence[str]], Pixels]  # ids → uint8 [N, side, side]


def remember(path: Path, read: Read, paths: Mapping[str, str], config: Any) -> None:
    """Add what a run's best checkpoint knows of its images to it, where it is not there yet.

    Args:
        path: of the checkpoint.
        read: ids → its images in its square.
        paths: of the images' files by id, as far as they are known.
        config: of the run, whose objects may be built: they have just been.
    """
    reader, checkpoint = read_trained(path, config)
    if checkpoint.familiar is not None:
        return
    train, validation = sides(checkpoint)
    ask = Inference(reader, checkpoint.record.precision)
    details = _details(checkpoint, [paths[i] for i in train if i in paths])
    familiar = learn(ask, read(train), read(validation), details)
    if familiar is None:
        return
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    content["familiar"] = familiar.plain()
    try:
        with replacing(path) as beside:
            torch.save(content, beside)
    except (OSError, RuntimeError) as error:  # PyTorch's writer turns what the disk says into the second
        log.warning("%s cannot be written (%s): it will not know a hand from a cat", path, first_line(error))


def familiar_of(checkpoint: Checkpoint, ask: Inference) -> Familiar | None:
    """Return what a checkpoint knows of its images.

    One from before it was kept has it in a file beside it, which is made where its images are still there.

    Raises:
        BoneageError: what it holds cannot be read.
    """
    beside = checkpoint.path.with_suffix(".familiar")
    try:
        kept = checkpoint.familiar
        if kept is None and beside.is_file():
            kept = torch.load(beside, map_location="cpu", weights_only=True)
        if known := Familiar.parse(kept):
            ask.reader.network.get_submodule(known.layer)  # there must be one
            return known
    except Exception as error:
        named = checkpoint.path if checkpoint.familiar is not None else beside
        raise BoneageError(
            f"{named} cannot be read: {first_line(error)}\nDelete it if it is yours."
        ) from error
    found = _learned(checkpoint, ask)
    if found is None:
        log.warning(
            "%s does not say what its images looked like, and they are not there to be looked at:\n"
            "no flag will say whether a picture is a hand.",
            checkpoint.path,
        )
        return None
    try:
        with replacing(beside) as file:
            torch.save(found.plain(), file)
    except (OSError, RuntimeError) as error:
        log.warning("%s cannot be written (%s); the next start looks again", beside, first_line(error))
    return found


def sides(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Return the ids that are looked at, spread over each side: of a picture one, and none of both sides."""
    split = checkpoint.record.split
    shown = split.get("contents") or split["hashes"]

    def once(ids: Sequence[str], but: set[str]) -> list[str]:
        of = {shown.get(i, i): i for i in ids if shown.get(i, i) not in but}
        every = list(of.values())
        return every[:: -(-len(every) // MOST) or 1]

    train = {shown.get(i, i) for i in split["train"]}
    return once(split["train"], set()), once(split["validation"], train)


def _learned(checkpoint: Checkpoint, ask: Inference) -> Familiar | None:
    record = checkpoint.record
    if not record.root or not Path(record.root).exists():
        return None
    from boneage_pl.data.table import examine_table  # imports pandas

    train, validation = sides(checkpoint)
    try:
        place = replace(Place.configured(record.config["data"]), root=Path(record.root))
        table, _ = examine_table(place)
        paths = dict(zip(table["id"], table["path"], strict=True))
        ids = [i for i in (*train, *validation) if i in paths]
        doing = f"learning once what the images of {checkpoint.path.name} look like"
        images = {i: _square(checkpoint, paths[i]) for i in progress(ids, len(ids), doing)}
    except (BoneageError, OSError):
        return None
    of_train, of_validation = ([images[i] for i in side if i in images] for side in (train, validation))
    return learn(ask, of_train, of_validation, _details(checkpoint, [paths[i] for i in train if i in paths]))


def _details(checkpoint: Checkpoint, paths: Sequence[str]) -> list[float]:
    """Return `detail_of` files, by their headers alone; of those that cannot be opened none."""
    frame = checkpoint.record.frame
    found = []
    for path in paths:
        with suppress(Exception), Image.open(path, formats=FORMATS) as image:
            found.append(detail_of(image.size, frame.side, frame.fit))
    return found


def _square(checkpoint: Checkpoint, path: str) -> Pixels:
    levels = checkpoint.record.levels
    used = bits(read_depth(path), levels) if levels and is_wide(path) else 0
    return checkpoint.record.frame.of(read_radiograph(path, used))
