"""What `images=` names: a file, a list, a folder, a pattern or a table, one question after the other."""

import glob
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from boneage_pl.data.images.dicom import is_dicom
from boneage_pl.data.images.radiograph import SUFFIXES
from boneage_pl.data.tables.spec import default_conventions
from boneage_pl.errors import BoneAgeError
from boneage_pl.reading.answer import PredictionRequest
from boneage_pl.utils.files import expand_path, iter_files

SEXES = {"F": False, "M": True, "UNKNOWN": "unknown"}
_NOT_IMAGES = (f"{os.sep}DICOMDIR", ".sr.dcm")  # an archive's index, and reports of ours
_HEAD = 132  # bytes that tell DICOM


def parse_sex(sex: Any) -> Any:
    """Return what `sex` says: a boy `True`, a girl `False`, `unknown`, or `None` where it says nothing.

    Raises:
        BoneAgeError: it is none of these.
    """
    if sex is None or isinstance(sex, bool):
        return sex
    try:
        return SEXES[str(sex).strip().upper()]
    except KeyError:
        raise BoneAgeError(f"sex={sex}: it is F, M or unknown.") from None


def expand_inputs(images: Iterable[str], sex: Any = None) -> Iterator[PredictionRequest]:
    """Return what is asked about, in the order of names; a table's rows in its order.

    Args:
        images: files, folders (with all below), patterns such as `hands/*.png`, and tables with a column of
            paths or ids.
        sex: of all of them, where no table says otherwise: F, M or unknown; `None` where the files say.

    Raises:
        BoneAgeError: a name under which there is nothing, or a table that cannot be read.
    """
    male = parse_sex(sex)
    names = [(name, expand_path(str(name))) for name in images]
    if not names:
        raise BoneAgeError("images=[]: name a file, a folder, a pattern or a table.")
    return chain.from_iterable([_expand_one(str(name), path, male) for name, path in names])


def _expand_one(name: str, path: Path, male: Any) -> Iterable[PredictionRequest]:
    if os.path.isdir(path):  # noqa: PTH112 — a Path raises where a name is too long
        found = _images_below(path)
        first = next(found, None)
        if first is None:
            there = ", ".join(SUFFIXES)
            raise BoneAgeError(f"images={name}: no radiograph in it ({there}, DICOM by any name).")
        return _chained(first, found, male)
    if path.suffix.lower() in default_conventions().table_suffixes and os.path.isfile(path):  # noqa: PTH113
        from boneage_pl.reading.asked_table import requests_from_table  # imports pandas

        return requests_from_table(path, male)
    if os.path.lexists(path):
        return [PredictionRequest(path, male)]
    matching = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 — a pattern may be absolute
    if not matching:
        raise BoneAgeError(f"images={name}: there is no such file or folder, and nothing matches it.")
    files = [Path(file) for file in matching if not Path(file).is_dir()]
    return [PredictionRequest(file, male) for file in files]


def _chained(first: Path, rest: Iterator[Path], male: Any) -> Iterator[PredictionRequest]:
    yield PredictionRequest(first, male)
    for path in rest:
        yield PredictionRequest(path, male)


def _images_below(folder: Path) -> Iterator[Path]:
    for path in iter_files(folder):
        if path.endswith(_NOT_IMAGES):
            continue
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 — thousands of Paths take seconds
        if suffix in SUFFIXES or looks_like_dicom(path):
            yield Path(path)


def looks_like_dicom(path: str) -> bool:
    """Whether a file is DICOM that is called otherwise: archives export them by number or UID."""
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            return False
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return len(head) == _HEAD and is_dicom(head) and head[128:] == b"DICM"
