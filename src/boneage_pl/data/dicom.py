"""A radiograph in a DICOM file: its picture as a viewer shows it, and what its tags say of it. No torch.

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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boneage_pl.data.images import LARGEST_FILE, bad_image, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

_EXTRA = "pip install 'boneage_pl[dicom]'"
_MAGIC = slice(128, 132)
# how a file without preamble begins: group 2 or 8 in either byte order
_BARE = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_MONTH = 30.4375  # days, 365.25 / 12
_OLDEST = 130 * 12  # months; our choice: what is older is a mistake
_AGE = re.compile(r"(\d{3})([DWMY])")  # PS3.5 6.2, AS
_IN_MONTHS = {"D": 1 / _MONTH, "W": 7 / _MONTH, "M": 1.0, "Y": 12.0}
_FAR = 1e12  # beyond every window

Values = NDArray[Any]


@dataclass(frozen=True)
class Tags:
    """What a DICOM file's tags say of its radiograph.

    Args:
        male: the sex in PatientSex; `None` where it is neither F nor M.
        age: chronological, in months: from birth to study, or else PatientAge; `None` where neither is given.
        laterality: `L`, `R` or nothing.
        view: ViewPosition, such as `AP`; or nothing.
        inverted: whether its values mean white where they are low (MONOCHROME1).
        unwindowed: why the window was not used, if there was one.
    """

    male: bool | None
    age: float | None
    laterality: str
    view: str
    inverted: bool
    unwindowed: str = ""


def is_dicom(content: bytes) -> bool:
    """Whether a file's bytes are DICOM's: by its mark, or by the first tag where there is no preamble."""
    return content[_MAGIC] == b"DICM" or content[:2] in _BARE


def decode_dicom(content: bytes, name: str) -> tuple[Image.Image, Tags]:
    """Return the picture of a DICOM file, mode `L`, and its tags.

    Bits beyond those stored are ignored; the modality LUT or rescaling, then the first VOI LUT or window are
    applied (PS3.3 C.11.1 and C.11.2); without either the picture goes from its darkest to its brightest
    value, as viewers show it. MONOCHROME1 is inverted, padding is black, colours become luminance.

    Args:
        content: of the file.
        name: what an error calls it.

    Raises:
        BadImageError: pydicom is not installed, the file is damaged or holds no single picture, or what it is
            compressed with cannot be decoded; it says what to install.
    """
    with _quiet():
        dataset = _read(content, name)
        values = _pixels(dataset, name)
        try:
            gray, unwindowed = _shown(values, dataset)
        except Exception as error:  # a tag may hold anything
            raise bad_image(name, f"DICOM whose tags do not fit its pixels ({_told(error)})") from error
        return gray, _tags(dataset, unwindowed)


def _read(content: bytes, name: str) -> "Dataset":
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise bad_image(name, f"DICOM, and reading it needs an extra: {_EXTRA}") from error
    try:
        _check_deflated(content)
        dataset = dcmread(BytesIO(content), force=True)
        _check_picture(dataset, name)
    except Exception as error:  # pydicom raises whatever comes up in a damaged file
        if hasattr(error, "kind"):
            raise
        raise bad_image(name, f"damaged DICOM ({type(error).__name__})") from error  # words may quote a tag
    return dataset


def _check_deflated(content: bytes) -> None:
    """Raise `ValueError` where what follows the header unpacks to more than any radiograph has."""
    if b"1.2.840.10008.1.2.1.99" not in content[132:1024]:
        return
    start = 144 + int.from_bytes(content[140:144], "little")
    unpacked = zlib.decompressobj(-zlib.MAX_WBITS)
    unpacked.decompress(content[start:], LARGEST_FILE)
    if unpacked.unconsumed_tail:
        raise ValueError("unpacks to more than a radiograph has")


def _check_picture(dataset: "Dataset", name: str) -> None:
    if "PixelData" not in dataset:
        raise bad_image(name, "DICOM without a picture in it")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise bad_image(
            name, f"DICOM of {frames} frames, where a radiograph is one; export the one that is meant"
        )
    check_size(int(dataset.Columns), int(dataset.Rows), name)
    if int(dataset.get("SamplesPerPixel") or 1) not in (1, 3):
        raise bad_image(name, f"DICOM of {dataset.SamplesPerPixel} samples a pixel")
    meta = getattr(dataset, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

        implicit, little = dataset.original_encoding
        dataset.file_meta = meta or FileMetaDataset()
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _pixels(dataset: "Dataset", name: str) -> Values:
    """Return the stored values: [H, W], or of colours RGB [H, W, 3]."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        values = dataset.pixel_array
    except Exception as error:  # each plugin has errors of its own
        found = _jpeg(dataset) if syntax.is_compressed and "JPEG" in syntax.name else None
        if found is None:
            raise bad_image(name, _undecoded(dataset, error)) from error
        values = found
    if values.shape[:2] != (dataset.Rows, dataset.Columns) or values.size == 0:
        raise bad_image(name, "DICOM whose pixels are not as many as its tags say")
    return values


def _jpeg(dataset: "Dataset") -> Values | None:
    """Decode what is compressed as JPEG by libjpeg-turbo, which takes 12 bits that others refuse."""
    try:
        from imagecodecs import jpeg_decode
        from pydicom.encaps import generate_frames

        return np.asarray(jpeg_decode(next(generate_frames(dataset.PixelData, number_of_frames=1))))
    except Exception:  # not installed, or damaged: the first decoder's words are told
        return None


def _undecoded(dataset: "Dataset", error: Exception) -> str:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    known = str(syntax.name)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return (
            f"DICOM compressed as {known}, which nothing here decodes; convert it to another transfer syntax"
        )
    if decoder.is_available:
        return f"DICOM whose pixels are damaged ({known}: {_told(error)})"
    return f"DICOM compressed as {known}; to decode it, {_EXTRA}"


def _shown(values: Values, dataset: "Dataset") -> tuple[Image.Image, str]:
    """Return values as a viewer shows them, and why a window was not used."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        deep = values.dtype.itemsize > 1
        colours = _to_8_bits(values, 0, np.iinfo(values.dtype).max) if deep else values
        return Image.fromarray(colours.astype(np.uint8)[..., :3], "RGB").convert("L"), ""
    used = ~_padding(values, dataset)
    real = apply_modality_lut(values, dataset)
    unwindowed = ""
    try:
        shown, darkest, brightest = _windowed(real, dataset)
    except (ValueError, TypeError, LookupError, NotImplementedError, AttributeError) as error:
        unwindowed = f"its window cannot be used ({_told(error)})"
        shown, darkest, brightest = real, None, None
    if darkest is None or brightest is None:
        seen = shown[used] if used.any() else shown
        darkest, brightest = float(seen.min()), float(seen.max())
    gray = _to_8_bits(shown, darkest, brightest)
    if photometric == "MONOCHROME1":
        gray = 255 - gray
    return Image.fromarray(np.where(used, gray, 0).astype(np.uint8)), unwindowed


def _windowed(real: Values, dataset: "Dataset") -> tuple[Values, float | None, float | None]:
    """Apply the first VOI LUT or window; with its darkest and brightest output, if there was one."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if dataset.get("VOILUTSequence"):
        whole = real if np.issubdtype(real.dtype, np.integer) else np.rint(real).astype(np.int32)
        shown = apply_voi(whole, dataset)
        # some write 12 bits into a table that says 16
        table = int(apply_voi(np.arange(whole.min(), whole.max() + 1), dataset).max())
        return shown, 0.0, float((1 << max(table.bit_length(), 1)) - 1)
    if dataset.get("WindowWidth") is None or dataset.get("WindowCenter") is None:
        return real, None, None
    with np.errstate(over="ignore"):
        darkest, brightest = apply_windowing(np.array([-_FAR, _FAR]), dataset)
        return apply_windowing(real, dataset), float(darkest), float(brightest)


def _padding(values: Values, dataset: "Dataset") -> NDArray[np.bool_]:
    """Return where a picture's file says that there is none (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(values.shape, dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit", first)
    low, high = sorted((first, last if isinstance(last, int) else first))
    return (values >= low) & (values <= high)


def _to_8_bits(values: Values, darkest: float, brightest: float) -> NDArray[np.uint8]:
    if brightest == darkest:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float32) - darkest) * np.float32(255 / (brightest - darkest))
    return np.rint(np.nan_to_num(scaled)).clip(0, 255).astype(np.uint8)


def _tags(dataset: "Dataset", unwindowed: str) -> Tags:
    sex = _text(dataset, "PatientSex").upper()
    side = (_text(dataset, "ImageLaterality") or _text(dataset, "Laterality")).upper()
    return Tags(
        male={"M": True, "F": False}.get(sex),
        age=_age(dataset),
        laterality=side if side in ("L", "R") else "",
        view=re.sub(r"[^A-Z0-9 ]", "", _text(dataset, "ViewPosition").upper())[:16],
        inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
        unwindowed=unwindowed,
    )


def _age(dataset: "Dataset") -> float | None:
    born, seen = _date(dataset, "PatientBirthDate"), _date(dataset, "StudyDate")
    if born and seen and 0 <= (months := (seen - born).days / _MONTH) <= _OLDEST:
        return months
    said = _AGE.fullmatch(_text(dataset, "PatientAge").upper())
    if said and said[0] != "000Y":  # what those who remove names write
        return int(said[1]) * _IN_MONTHS[said[2]]
    return None


def _date(dataset: "Dataset", name: str) -> date | None:
    try:
        return datetime.strptime(_text(dataset, name).replace(".", ""), "%Y%m%d").date()  # dots: ACR-NEMA
    except ValueError:
        return None


def _text(dataset: "Dataset", name: str) -> str:
    try:
        return str(dataset.get(name) or "").strip()
    except Exception:  # a value that cannot be parsed is not given
        return ""


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what pydicom says of odd and readable files: it may quote a tag."""
    logger = logging.getLogger("pydicom")
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
