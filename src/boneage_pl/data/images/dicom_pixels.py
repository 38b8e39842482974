"""Decode the pixels of a DICOM dataset."""

from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from boneage_pl.data.images.checks import BadImageError, bad_image, check_size
from boneage_pl.data.images.codestream import JPEG_MAGIC, decode_codestream, read_jpeg_header
from boneage_pl.data.images.decode import DICOM_EXTRA

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = "PixelData", "FloatPixelData", "DoubleFloatPixelData"
_ITEM = b"\xfe\xff\x00\xe0"  # start of a compressed frame, PS3.5 A.4

Values = NDArray[Any]


def read_texts(dataset: "Dataset", name: str) -> list[str]:
    """Return the non-empty values of a tag as text; empty if absent or invalid."""
    try:
        value = dataset.get(name)
    except Exception:  # pydicom raises many types for invalid values
        return []
    values = value if isinstance(value, MutableSequence) else [value]
    return [text for v in values if v is not None and (text := str(v).strip())]


def decode_pixels(dataset: "Dataset", name: str) -> Values:
    """Return the stored values: [H, W], or RGB [H, W, 3].

    Left-justified values (HighBit above BitsStored - 1) are shifted down; bits above HighBit are cleared.

    Raises:
        BadImageError: not a single image, damaged, or not decodable; with what to install.
    """
    try:
        _check_image(dataset, name)
        allocated = int(dataset.BitsAllocated)
        stored = int(dataset.get("BitsStored") or allocated)
        high = int(dataset.get("HighBit") or 0)
        dataset.BitsStored = max(min(high + 1, allocated), stored)  # pydicom reads the lowest of them
        values = _decode(dataset, name)
    except BadImageError:
        raise
    except Exception as error:  # tags have any content, which must not be quoted
        raise bad_image(name, f"damaged DICOM ({type(error).__name__})") from error
    if values.shape[:2] != (dataset.Rows, dataset.Columns) or not values.size:
        raise bad_image(name, "DICOM whose number of pixels differs from its tags")
    unused = dataset.BitsStored - stored
    return values >> unused if unused and _is_left_justified(values, stored, unused) else values


def _is_left_justified(values: Values, stored: int, unused: int) -> bool:
    """Whether values are stored up to HighBit, and not in the lowest bits after all."""
    if values.dtype.kind not in "iu":
        return False
    limit = 2 ** (stored - (values.dtype.kind == "i"))
    low = -limit <= values.min() and values.max() < limit
    return not low or not (values & (2**unused - 1)).any()


def _check_image(dataset: "Dataset", name: str) -> None:
    if not any(tag in dataset for tag in _PIXELS):
        if "Rows" in dataset or not len(dataset):  # pydicom drops everything at an early end of the file
            raise bad_image(name, "DICOM cut short")
        kind = getattr(dataset.get("SOPClassUID"), "name", "no SOP class")
        raise bad_image(name, f"DICOM without an image ({kind})")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise bad_image(name, f"DICOM with {frames} frames; export a single radiograph")
    check_size(int(dataset.Columns), int(dataset.Rows), name)
    if (samples := int(dataset.get("SamplesPerPixel") or 1)) not in (1, 3):
        raise bad_image(name, f"DICOM with {samples} samples per pixel, not 1 or 3")


def _decode(dataset: "Dataset", name: str) -> Values:
    from pydicom.encaps import generate_frames

    syntax = _transfer_syntax(dataset)
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise bad_image(name, f"DICOM in the private transfer syntax {syntax}; convert it to a standard one")
    content = dataset.get("PixelData") or b""
    stream = b""
    if content.startswith(_ITEM):  # whatever the syntax claims
        stream = next(generate_frames(content, number_of_frames=1))
        size = dataset.Columns, dataset.Rows
        if stream.startswith(JPEG_MAGIC) and read_jpeg_header(stream)[2:] != size:
            # a decoder would allocate the size in the stream
            raise bad_image(name, "DICOM whose number of pixels differs from its tags")
    try:
        return dataset.pixel_array
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plugins raise many types; pylibjpeg-rle's are no `Exception`
        first = error
    try:
        values = decode_codestream(stream)
    except Exception:  # not installed, or damaged
        raise bad_image(name, _describe(dataset, first)) from first
    if dataset.get("PixelRepresentation") == 1 and values.dtype.kind == "u":
        above = 8 * values.dtype.itemsize - dataset.BitsStored
        return (values << above).view(f"i{values.dtype.itemsize}") >> above
    return values


def _transfer_syntax(dataset: "Dataset") -> Any:
    """Return the transfer syntax; for a file without header, the one detected by pydicom."""
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    dataset.file_meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset.file_meta.TransferSyntaxUID


def _describe(dataset: "Dataset", error: BaseException) -> str:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import get_expected_length

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated and len(dataset.get("PixelData") or b"") < get_expected_length(dataset):
        return "DICOM cut short"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"DICOM compressed as {syntax.name}, which is not supported; convert it to another syntax"
    if not decoder.is_available:
        return f"DICOM compressed as {syntax.name}; to decode it, {DICOM_EXTRA}"
    return f"DICOM whose pixels are damaged ({syntax.name}: {' '.join(str(error).split())[:160]})"
