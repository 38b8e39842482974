"""Render the pixels of a DICOM dataset as a viewer does."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from boneage_pl.data.images.checks import bad_image, check_size
from boneage_pl.data.images.dicom_pixels import Values, read_texts

if TYPE_CHECKING:
    from pydicom import Dataset

_SHUTTER_EDGES = [
    f"Shutter{n}Edge" for n in ("LeftVertical", "UpperHorizontal", "RightVertical", "LowerHorizontal")
]
_MAX_DISTORTION = 0.01  # of square pixels; our choice: less is seen by nobody
_TAG_ERRORS = ValueError, TypeError, LookupError, AttributeError, NotImplementedError, OverflowError

Mask = NDArray[np.bool_]


def _read_numbers(dataset: "Dataset", name: str) -> list[float]:
    return [float(text.replace(",", ".")) for text in read_texts(dataset, name)]  # some write decimal commas


def render(values: Values, dataset: "Dataset", name: str) -> tuple[Image.Image, list[str]]:
    """Return values as a viewer shows them, mode `L`, and notes of what was done.

    The modality LUT or rescaling, then the first VOI LUT or window (PS3.3 C.11.1 and C.11.2), then the
    presentation LUT (C.11.4, C.11.6) are applied. Without a window that shows something the image goes from
    its darkest to its brightest value, as viewers show it. Padding and what lies outside the display shutter
    are black; colors become luminance; pixels that are not square are resampled.

    Raises:
        BadImageError: its tags do not fit its pixels, or it would be no shape of a radiograph.
    """
    notes: list[str] = []
    try:
        used = _shutter_mask(dataset, values.shape, notes)
        if values.ndim == 3 or read_texts(dataset, "PhotometricInterpretation") == ["PALETTE COLOR"]:
            gray = _luminance(values, dataset)
        else:
            used &= ~_padding_mask(values, dataset)
            gray = _to_8_bits(_display_values(values, dataset, used if used.any() else ..., notes))
        image = Image.fromarray(np.where(used, gray, 0).astype(np.uint8))
        return _resample_to_square_pixels(image, dataset, name, notes), notes
    except _TAG_ERRORS as error:  # a tag may hold anything, and words may quote it
        raise bad_image(name, f"DICOM whose tags do not fit its pixels ({type(error).__name__})") from error


def _luminance(values: Values, dataset: "Dataset") -> Values:
    from pydicom.pixels.processing import apply_color_lut

    most = 2**dataset.BitsStored - 1
    if values.ndim == 2:
        values = apply_color_lut(values, dataset)
        most = np.iinfo(values.dtype).max
    return np.asarray(Image.fromarray(_to_8_bits(values[..., :3] / most)).convert("L"))


def _to_8_bits(shown: Values) -> NDArray[np.uint8]:
    return np.rint(np.nan_to_num(shown) * 255).clip(0, 255).astype(np.uint8)


def _display_values(values: Values, dataset: "Dataset", used: Any, notes: list[str]) -> Values:
    """Return gray values as they are shown, from 0 to 1; `used` is where the image is."""
    if table := _lookup_table(dataset, "ModalityLUTSequence"):
        values = _apply_table(values, *table)
    else:
        slope, intercept = (_read_numbers(dataset, f"Rescale{n}")[:1] for n in ("Slope", "Intercept"))
        values = values * (slope or [1.0])[0] + (intercept or [0.0])[0]
    try:
        shown = _apply_window(values, dataset)
        if shown is not None and np.ptp(shown[used]) == 0:
            raise ValueError
    except _TAG_ERRORS:
        notes.append("its window shows nothing, or cannot be read: not used")
        shown = None
    if shown is None:
        darkest, brightest = float(values[used].min()), float(values[used].max())
        shown = (values - darkest) / ((brightest - darkest) or 1.0)
    if table := _lookup_table(dataset, "PresentationLUTSequence"):
        shown = _apply_table(shown * (len(table[0]) - 1), table[0] / table[0].max(), 0)
    shape = read_texts(dataset, "PresentationLUTShape")
    if shape == ["INVERSE"] or (not shape and dataset.get("PhotometricInterpretation") == "MONOCHROME1"):
        notes.append("inverted, by its tags")
        shown = 1 - shown
    return shown


def _apply_window(values: Values, dataset: "Dataset") -> Values | None:
    """Apply the first VOI LUT or window: from 0 to 1, or `None` where there is neither."""
    from highdicom.pixels import apply_voi_window

    if table := _lookup_table(dataset, "VOILUTSequence"):
        most = 2 ** int(table[0].max()).bit_length() - 1  # some write 12 bits into a table that says 16
        return _apply_table(values, table[0] / most, table[1])
    center, width = (_read_numbers(dataset, f"Window{n}") for n in ("Center", "Width"))
    if not center or not width:
        return None
    if width[0] <= 0:
        raise ValueError
    with np.errstate(all="ignore"):  # a width of 1 is a threshold
        function = *read_texts(dataset, "VOILUTFunction"), "LINEAR"
        return apply_voi_window(values, center[0], width[0], function[0])


def _lookup_table(dataset: "Dataset", sequence: str) -> tuple[Values, int] | None:
    """Return the entries of a sequence's first table and the value of the first; `None` without data."""
    items = dataset.get(sequence)
    if not items or not items[0].get("LUTDescriptor") or not items[0].get("LUTData"):
        return None
    count, first, _ = (int(number) for number in items[0].LUTDescriptor)
    count, data = count or 2**16, items[0].LUTData
    if isinstance(data, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * count else "<u2" if little else ">u2")
    if len(data) < count:
        raise ValueError
    return np.asarray(data[:count], dtype=np.float64), first


def _apply_table(values: Values, table: Values, first: int) -> Values:
    from highdicom.pixels import apply_lut

    return apply_lut(np.rint(np.nan_to_num(values)).astype(np.int64), table, first)


def _padding_mask(values: Values, dataset: "Dataset") -> Mask:
    """Return where an image's file says that there is none (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(values.shape, dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((first, last if isinstance(last, int) else first))
    return (values >= low) & (values <= high)


def _shutter_mask(dataset: "Dataset", shape: tuple[int, ...], notes: list[str]) -> Mask:
    """Return what the display shutter leaves to be seen (PS3.3 C.7.6.11)."""
    mask = Image.new("1", (shape[1], shape[0]), 1)
    try:
        for kind in read_texts(dataset, "ShutterShape"):
            part = Image.new("1", mask.size)
            draw = ImageDraw.Draw(part)
            if kind == "RECTANGULAR":
                draw.rectangle([_read_numbers(dataset, edge)[0] - 1 for edge in _SHUTTER_EDGES], fill=1)
            elif kind == "CIRCULAR":
                row, column = _read_numbers(dataset, "CenterOfCircularShutter")
                draw.circle(
                    (column - 1, row - 1), _read_numbers(dataset, "RadiusOfCircularShutter")[0], fill=1
                )
            else:
                corners = [number - 1 for number in _read_numbers(dataset, "VerticesOfThePolygonalShutter")]
                draw.polygon(list(zip(corners[1::2], corners[::2], strict=True)), fill=1)
            mask = ImageChops.logical_and(mask, part)
    except _TAG_ERRORS:
        mask = Image.new("1", mask.size)
    seen = np.array(mask)
    if not seen.any():
        notes.append("its display shutter shows nothing, or cannot be read: not used")
        return ~seen
    if not seen.all():
        notes.append("black outside its display shutter")
    return seen


def _resample_to_square_pixels(
    image: Image.Image, dataset: "Dataset", name: str, notes: list[str]
) -> Image.Image:
    tags = "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"  # of rows, then of columns
    high, wide = next((s for tag in tags if len(s := _read_numbers(dataset, tag)) == 2), (1, 1))
    if min(high, wide) <= 0 or abs(high / wide - 1) < _MAX_DISTORTION:
        return image
    notes.append("its pixels are not square: resampled")
    size = round(image.width * max(wide / high, 1)), round(image.height * max(high / wide, 1))
    check_size(*size, name)
    return image.resize(size, Image.Resampling.BILINEAR)
