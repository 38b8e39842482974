"""Decode DICOM pixels and apply the display pipeline: modality and VOI LUT, window, padding."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boneage_pl.data.images.decode import BadImageError, bad_image, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_EXTRA = "pip install 'boneage_pl[dicom]'"
# Markers before which a frame's size stands: JPEG's starts of frame, JPEG-LS's too, and JPEG 2000's SIZ
_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_SIZ = 0x51

Values = NDArray[Any]


def _check_image(dataset: "Dataset", name: str) -> None:
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


def decode_pixels(dataset: "Dataset", name: str) -> Values:
    """Return the stored values: [H, W], or of colors RGB [H, W, 3].

    Raises:
        BadImageError: no single picture, a damaged one, or one that cannot be decoded: what to install.
    """
    try:
        _check_image(dataset, name)
    except BadImageError:
        raise
    except Exception as error:  # a tag may hold anything, and words may quote it
        raise bad_image(name, f"damaged DICOM ({type(error).__name__})") from error
    syntax = dataset.file_meta.TransferSyntaxUID
    bits = _encoded_size(dataset) if syntax.is_encapsulated else None
    if bits not in (None, (dataset.Columns, dataset.Rows)):
        raise bad_image(name, "DICOM whose pixels are not as many as its tags say")
    try:
        values = dataset.pixel_array
    except Exception as error:  # each plugin has errors of its own
        decoded = _decode_jpeg(dataset) if syntax.is_compressed and "JPEG" in syntax.name else None
        if decoded is None:
            raise bad_image(name, _decoding_error(dataset, error)) from error
        values = decoded
    if values.shape[:2] != (dataset.Rows, dataset.Columns) or values.size == 0:
        raise bad_image(name, "DICOM whose pixels are not as many as its tags say")
    return values


def _encoded_size(dataset: "Dataset") -> tuple[int, int] | None:
    """Return width and height that a JPEG of any kind says of itself: a decoder would make room for them."""
    from pydicom.encaps import generate_frames

    try:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    except Exception:  # the decoder says what is wrong
        return None
    at = 2
    while frame[at : at + 1] == b"\xff" and len(frame) >= at + 16:
        marker = frame[at + 1]
        if marker in _SIZE_MARKERS:
            height, width = (int.from_bytes(frame[at + k : at + k + 2], "big") for k in (5, 7))
            return width, height
        if marker == _SIZ:
            width, height = (int.from_bytes(frame[at + k : at + k + 4], "big") for k in (6, 10))
            left, top = (int.from_bytes(frame[at + k : at + k + 4], "big") for k in (14, 18))
            return width - left, height - top
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _decode_jpeg(dataset: "Dataset") -> Values | None:
    """Decode what is compressed as JPEG by libjpeg-turbo, which takes 12 bits that others refuse."""
    try:
        from imagecodecs import jpeg_decode
        from pydicom.encaps import generate_frames

        return np.asarray(jpeg_decode(next(generate_frames(dataset.PixelData, number_of_frames=1))))
    except Exception:  # not installed, or damaged: the first decoder's error is raised
        return None


def _decoding_error(dataset: "Dataset", error: Exception) -> str:
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
        return f"DICOM whose pixels are damaged ({known}: {describe_pydicom_error(error)})"
    return f"DICOM compressed as {known}; to decode it, {DICOM_EXTRA}"


def describe_pydicom_error(error: Exception) -> str:
    """Return an error's words, short and in a line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


if TYPE_CHECKING:
    from pydicom import Dataset

_BEYOND_WINDOW = 1e12  # beyond every window


def apply_display_pipeline(values: Values, dataset: "Dataset") -> tuple[Image.Image, str]:
    """Return values as a viewer shows them, and why a window was not used."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        deep = values.dtype.itemsize > 1
        colors = _to_8_bits(values, 0, np.iinfo(values.dtype).max) if deep else values
        return Image.fromarray(colors.astype(np.uint8)[..., :3], "RGB").convert("L"), ""
    used = ~_padding_mask(values, dataset)
    real = apply_modality_lut(values, dataset)
    unwindowed = ""
    try:
        shown, darkest, brightest = _apply_window(real, dataset)
    except (ValueError, TypeError, LookupError, NotImplementedError, AttributeError) as error:
        unwindowed = f"its window cannot be used ({describe_pydicom_error(error)})"
        shown, darkest, brightest = real, None, None
    if darkest is None or brightest is None:
        seen = shown[used] if used.any() else shown
        darkest, brightest = float(seen.min()), float(seen.max())
    gray = _to_8_bits(shown, darkest, brightest)
    if photometric == "MONOCHROME1":
        gray = 255 - gray
    return Image.fromarray(np.where(used, gray, 0).astype(np.uint8)), unwindowed


def _apply_window(real: Values, dataset: "Dataset") -> tuple[Values, float | None, float | None]:
    """Apply the first VOI LUT or window; with its darkest and brightest output, if there was one."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if dataset.get("VOILUTSequence"):
        whole = real if np.issubdtype(real.dtype, np.integer) else np.rint(real).astype(np.int32)
        shown = apply_voi(whole, dataset)
        entries, first, _ = dataset.VOILUTSequence[0].LUTDescriptor
        table = apply_voi(np.arange(first, first + (entries or 2**16)), dataset)
        most = int(table.max()).bit_length()  # some write 12 bits into a table that says 16
        return shown, 0.0, float((1 << max(most, 1)) - 1)
    if dataset.get("WindowWidth") is None or dataset.get("WindowCenter") is None:
        return real, None, None
    with np.errstate(over="ignore"):
        darkest, brightest = apply_windowing(np.array([-_BEYOND_WINDOW, _BEYOND_WINDOW]), dataset)
        return apply_windowing(real, dataset), float(darkest), float(brightest)


def _padding_mask(values: Values, dataset: "Dataset") -> NDArray[np.bool_]:
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
