"""Decode DICOM files to 8-bit gray and read relevant tags.

Nothing that identifies a person is stored: ages are computed from dates, and the dates are dropped.
"""

import logging
import re
import warnings
import zlib
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from boneage_pl.data.images.checks import MAX_FILE_BYTES, bad_image
from boneage_pl.data.images.decode import DICOM_EXTRA
from boneage_pl.data.images.dicom_display import render
from boneage_pl.data.images.dicom_pixels import decode_pixels, read_texts

if TYPE_CHECKING:
    from pydicom import Dataset

DAYS_PER_MONTH = 30.4375  # days, 365.25 / 12
MAX_AGE_MONTHS = 130 * 12  # months; our choice: more is an error

_MAGIC = slice(128, 132)
# start of a file without preamble: group 2 or 8 in either byte order
_NO_PREAMBLE = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_SEXES = dict.fromkeys(["M", "MALE", "BOY"], True) | dict.fromkeys(["F", "FEMALE", "GIRL", "W"], False)
_DATE = re.compile(r"(\d{4})([-./]?)(\d{2})\2(\d{2})")  # PS3.5 6.2, DA, ACR-NEMA's dots and ISO 8601
_STUDY_DATES = "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"
_PLACEHOLDER = date(1900, 1, 1)  # written by anonymizers
_AGE = re.compile(r"(\d{1,3})([DWMY])")  # PS3.5 6.2, AS
_MONTHS_PER_UNIT = {"D": 1 / DAYS_PER_MONTH, "W": 7 / DAYS_PER_MONTH, "M": 1.0, "Y": 12.0}
_HAND = re.compile("HAND|WRIST|FINGER|THUMB|CARP|BONE ?AGE|^EXTREMITY|^UP.* EX")  # in BodyPartExamined

# pydicom's messages may quote patient data. Set globally, since `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").addHandler(logging.NullHandler())
logging.getLogger("pydicom").propagate = False  # not its level, which it sets when it is imported


@dataclass(frozen=True)
class DicomTags:
    """Tags of a DICOM radiograph.

    Args:
        male: from PatientSex; `None` if neither male nor female.
        age: chronological age in months, from birth to study date or from PatientAge; `None` if missing.
        laterality: `L`, `R`, `B` or empty.
        notes: preprocessing steps and unusual tags.
    """

    male: bool | None
    age: float | None
    laterality: str
    notes: list[str] = field(default_factory=list)


def months_between(birth: date, study: date) -> float | None:
    """Return the age in months at the study date; `None` if invalid."""
    months = (study - birth).days / DAYS_PER_MONTH
    return months if 0 <= months <= MAX_AGE_MONTHS else None


def is_dicom(content: bytes) -> bool:
    """Whether bytes are DICOM, by the magic number, or by the first tag if there is no preamble."""
    return content[_MAGIC] == b"DICM" or content[:2] in _NO_PREAMBLE


def non_image_class(path: Path | str) -> str:
    """Return the class of a DICOM object without image, such as `Encapsulated PDF Storage`; else empty."""
    try:
        from pydicom.filereader import read_file_meta_info

        uid = read_file_meta_info(path).MediaStorageSOPClassUID  # str if empty
        return "" if uid.is_private or uid.name == uid or "Image" in uid.name else str(uid.name)
    except Exception:  # not installed, or damaged, which decoding reports
        return ""


def decode_dicom(content: bytes, name: str) -> tuple[Image.Image, DicomTags]:
    """Return the image of a DICOM file, mode `L`, see `dicom_display.render`, and its tags.

    Args:
        content: bytes of the file.
        name: for errors.

    Raises:
        BadImageError: pydicom is not installed, the file is damaged or not a single image, or its compression
            is not supported; with what to install.
    """
    dataset = _read_dataset(content, name)
    image, notes = render(decode_pixels(dataset, name), dataset, name)
    return image, _read_tags(dataset, notes)


def _read_dataset(content: bytes, name: str) -> "Dataset":
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise bad_image(name, f"DICOM, which needs an extra: {DICOM_EXTRA}") from error
    try:
        _check_deflated(content)
        dataset = dcmread(BytesIO(content), force=True)
        for tag in list(dataset.keys()):  # treat empty tags as absent
            if not dataset.get_item(tag).value:
                del dataset[tag]
    except Exception as error:  # pydicom raises many types for damaged files
        raise bad_image(name, f"damaged DICOM ({type(error).__name__})") from error
    return dataset


def _check_deflated(content: bytes) -> None:
    """Raise `ValueError` if the deflated part is too large for a radiograph."""
    if _DEFLATED in content[132:1024]:
        start = 144 + int.from_bytes(content[140:144], "little")
        unpacked = zlib.decompressobj(-zlib.MAX_WBITS)
        unpacked.decompress(content[start:], MAX_FILE_BYTES)
        if unpacked.unconsumed_tail:
            raise ValueError("too large after decompression")


def _read_tags(dataset: "Dataset", notes: list[str]) -> DicomTags:
    """Return the tags, and append unusual ones to `notes`."""
    codes = ["ImageLaterality", "Laterality", "PatientSex", "ViewPosition", "BodyPartExamined"]
    texts = [" ".join(read_texts(dataset, name)).upper() for name in codes]
    side, other_side, sex, view, part = (re.sub("[^A-Z0-9 ]", " ", text).strip()[:16] for text in texts)
    side = (side or other_side)[:1]
    age, is_odd = _patient_age(dataset)
    possible_notes = {
        "right hand, mirrored": side == "R",
        "both hands, by its tags; one is expected": side == "B",
        f"view {view}": view,
        f"not a hand, by its tags: {part}": part and not _HAND.search(part),
        f"its sex is neither F nor M: {sex}": sex and sex not in _SEXES,
        "its dates are invalid": is_odd,
    }
    notes += [note for note, applies in possible_notes.items() if applies]
    return DicomTags(_SEXES.get(sex), age, side if side in ("L", "R", "B") else "", notes)


def _patient_age(dataset: "Dataset") -> tuple[float | None, bool]:
    """Return the age in months, and whether a date is invalid."""
    dates = ["".join(read_texts(dataset, name)[:1]) for name in ("PatientBirthDate", *_STUDY_DATES)]
    birth, *studies = [_parse_date(text) for text in dates]
    study = next(filter(None, studies), None)
    months = months_between(birth, study) if birth and study and birth != _PLACEHOLDER else None
    age = _AGE.fullmatch("".join(read_texts(dataset, "PatientAge")).upper())
    if months is None and age and int(age[1]):  # 000Y is a placeholder
        months = int(age[1]) * _MONTHS_PER_UNIT[age[2]]
    return months, bool((dates[0] and not birth) or (any(dates[1:]) and not study))


def _parse_date(text: str) -> date | None:
    match = _DATE.match(text)
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None
