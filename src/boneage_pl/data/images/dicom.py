"""Decode DICOM files to 8-bit gray and read the tags that matter.

pydicom decodes with the plugins that the extra `dicom` brings; JPEG that those refuse is read by imagecodecs.
Nothing that identifies a person is kept: ages are differences of dates, and the dates are let go.
"""

import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from boneage_pl.data.images.decode import MAX_FILE_BYTES, bad_image
from boneage_pl.data.images.dicom_pixels import (
    DICOM_EXTRA,
    apply_display_pipeline,
    decode_pixels,
    describe_pydicom_error,
)

DAYS_PER_MONTH = 30.4375  # days, 365.25 / 12
MAX_AGE_MONTHS = 130 * 12  # months; our choice: what is older is a mistake


def months_between(born: date, seen: date) -> float | None:
    """Return the age on a day; `None` where the dates cannot be right."""
    months = (seen - born).days / DAYS_PER_MONTH
    return months if 0 <= months <= MAX_AGE_MONTHS else None


if TYPE_CHECKING:
    from pydicom import Dataset

_MAGIC = slice(128, 132)
# how a file without preamble begins: group 2 or 8 in either byte order
_NO_PREAMBLE = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_AGE = re.compile(r"(\d{3})([DWMY])")  # PS3.5 6.2, AS
_MONTHS_PER_UNIT = {"D": 1 / DAYS_PER_MONTH, "W": 7 / DAYS_PER_MONTH, "M": 1.0, "Y": 12.0}


@dataclass(frozen=True)
class DicomTags:
    """What a DICOM file's tags say of its radiograph.

    Args:
        male: the sex in PatientSex; `None` where it is neither F nor M.
        age: chronological, in months: from birth to study, or else PatientAge; `None` where neither is given.
        laterality: `L`, `R` or nothing.
        view: ViewPosition, such as `AP`; or nothing.
        inverted: whether its values mean white where they are low (MONOCHROME1).
        window_error: why the window was not used, if there was one.
    """

    male: bool | None
    age: float | None
    laterality: str
    view: str
    inverted: bool
    window_error: str = ""


def is_dicom(content: bytes) -> bool:
    """Whether a file's bytes are DICOM's: by its mark, or by the first tag where there is no preamble."""
    return content[_MAGIC] == b"DICM" or content[:2] in _NO_PREAMBLE


def decode_dicom(content: bytes, name: str) -> tuple[Image.Image, DicomTags]:
    """Return the picture of a DICOM file, mode `L`, and its tags.

    Bits beyond those stored are ignored; the modality LUT or rescaling, then the first VOI LUT or window are
    applied (PS3.3 C.11.1 and C.11.2); without either the picture goes from its darkest to its brightest
    value, as viewers show it. MONOCHROME1 is inverted, padding is black, colors become luminance.

    Args:
        content: of the file.
        name: what an error calls it.

    Raises:
        BadImageError: pydicom is not installed, the file is damaged or holds no single picture, or what it is
            compressed with cannot be decoded; it says what to install.
    """
    with _silence_pydicom():
        dataset = _read_dataset(content, name)
        values = decode_pixels(dataset, name)
        try:
            gray, unwindowed = apply_display_pipeline(values, dataset)
        except Exception as error:  # a tag may hold anything
            raise bad_image(
                name, f"DICOM whose tags do not fit its pixels ({describe_pydicom_error(error)})"
            ) from error
        return gray, _read_tags(dataset, unwindowed)


def _read_dataset(content: bytes, name: str) -> "Dataset":
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise bad_image(name, f"DICOM, and reading it needs an extra: {DICOM_EXTRA}") from error
    try:
        _check_deflated(content)
        return dcmread(BytesIO(content), force=True)
    except Exception as error:  # pydicom raises whatever comes up in a damaged file
        raise bad_image(name, f"damaged DICOM ({type(error).__name__})") from error  # words may quote a tag


def _check_deflated(content: bytes) -> None:
    """Raise `ValueError` where what follows the header unpacks to more than any radiograph has."""
    if b"1.2.840.10008.1.2.1.99" not in content[132:1024]:
        return
    start = 144 + int.from_bytes(content[140:144], "little")
    unpacked = zlib.decompressobj(-zlib.MAX_WBITS)
    unpacked.decompress(content[start:], MAX_FILE_BYTES)
    if unpacked.unconsumed_tail:
        raise ValueError("unpacks to more than a radiograph has")


def _read_tags(dataset: "Dataset", unwindowed: str) -> DicomTags:
    sex = _text_value(dataset, "PatientSex").upper()
    side = (_text_value(dataset, "ImageLaterality") or _text_value(dataset, "Laterality")).upper()
    return DicomTags(
        male={"M": True, "F": False}.get(sex),
        age=_patient_age(dataset),
        laterality=side if side in ("L", "R") else "",
        view=re.sub(r"[^A-Z0-9 ]", "", _text_value(dataset, "ViewPosition").upper())[:16],
        inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
        window_error=unwindowed,
    )


def _patient_age(dataset: "Dataset") -> float | None:
    born, seen = _date_value(dataset, "PatientBirthDate"), _date_value(dataset, "StudyDate")
    if born and seen and (months := months_between(born, seen)) is not None:
        return months
    text = _AGE.fullmatch(_text_value(dataset, "PatientAge").upper())
    if text and text[0] != "000Y":  # what those who remove names write
        return int(text[1]) * _MONTHS_PER_UNIT[text[2]]
    return None


def _date_value(dataset: "Dataset", name: str) -> date | None:
    try:
        return datetime.strptime(
            _text_value(dataset, name).replace(".", ""), "%Y%m%d"
        ).date()  # dots: ACR-NEMA
    except ValueError:
        return None


def _text_value(dataset: "Dataset", name: str) -> str:
    try:
        return str(dataset.get(name) or "").strip()
    except Exception:  # a value that cannot be parsed is not given
        return ""


@contextmanager
def _silence_pydicom() -> Iterator[None]:
    """Leave out what pydicom says of odd and readable files: it may quote a tag."""
    logger = logging.getLogger("pydicom")
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
