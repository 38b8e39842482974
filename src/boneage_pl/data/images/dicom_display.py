"""Render the pixels of a DICOM dataset like a viewer."""

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
_MAX_DISTORTION = 0.01  # of the pixel aspect ratio; our choice: less is invisible
_TAG_ERRORS = ValueError, TypeError, LookupError, AttributeError, NotImplementedError, OverflowError

Mask = NDArray[np.bool_]


def _read_numbers(dataset: "Dataset", name: str) -> list[float]:
    return [
        float(text.replace(",", ".")) for text in read_texts(dataset, name)
    ]  # some files have decimal commas


def render(values: Values, dataset: "Dataset", name: str) -> tuple[Image.Image, list[str]]:
    """Render stored values like a viewer, mode `L`, and return notes on the steps.

    Applies the modality LUT or rescaling, the first VOI LUT or window (PS3.3 C.11.1 and C.11.2) and the
    presentation LUT (C.11.4, C.11.6). Without a valid window, the range is from the darkest to the brightest
    value. Padding and everything outside the display shutter become black, colors luminance, and non-square
    pixels are resampled.

    Raises:
        BadImageError: tags that do not fit the pixels, or an invalid aspect ratio.
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
    except _TAG_ERRORS as error:  # tags have any content, which must not be quoted
        raise bad_image(name, f"DICOM whose tags do not fit its pixels ({type(error).__name__})") from error


def _luminance(values: Values, dataset: "Dataset") -> Values:
    from pydicom.pixels.processing import apply_color_lut

    maximum = 2**dataset.BitsStored - 1
    if values.ndim == 2:
        values = apply_color_lut(values, dataset)
        maximum = np.iinfo(values.dtype).max
    return np.asarray(Image.fromarray(_to_8_bits(values[..., :3] / maximum)).convert("L"))


def _to_8_bits(values: Values) -> NDArray[np.uint8]:
    return np.rint(np.nan_to_num(values) * 255).clip(0, 255).astype(np.uint8)


def _display_values(values: Values, dataset: "Dataset", used: Any, notes: list[str]) -> Values:
    """Return display values from 0 to 1; `used` masks the image area."""
    if table := _lookup_table(dataset, "ModalityLUTSequence"):
        values = _apply_table(values, *table)
    else:
        slope, intercept = (_read_numbers(dataset, f"Rescale{n}")[:1] for n in ("Slope", "Intercept"))
        values = values * (slope or [1.0])[0] + (intercept or [0.0])[0]
    try:
        display = _apply_window(values, dataset)
        if display is not None and np.ptp(display[used]) == 0:
            raise ValueError
    except _TAG_ERRORS:
        notes.append("its window is invalid: not used")
        display = None
    if display is None:
        darkest, brightest = float(values[used].min()), float(values[used].max())
        display = (values - darkest) / ((brightest - darkest) or 1.0)
    if table := _lookup_table(dataset, "PresentationLUTSequence"):
        display = _apply_table(display * (len(table[0]) - 1), table[0] / table[0].max(), 0)
    shape = read_texts(dataset, "PresentationLUTShape")
    if shape == ["INVERSE"] or (not shape and dataset.get("PhotometricInterpretation") == "MONOCHROME1"):
        notes.append("inverted, by its tags")
        display = 1 - display
    return display


def _apply_window(values: Values, dataset: "Dataset") -> Values | None:
    """Apply the first VOI LUT or window: values from 0 to 1, or `None` if there is neither."""
    from highdicom.pixels import apply_voi_window

    if table := _lookup_table(dataset, "VOILUTSequence"):
        maximum = 2 ** int(table[0].max()).bit_length() - 1  # some tables declare 16 bits but use 12
        return _apply_table(values, table[0] / maximum, table[1])
    center, width = (_read_numbers(dataset, f"Window{n}") for n in ("Center", "Width"))
    if not center or not width:
        return None
    if width[0] <= 0:
        raise ValueError
    with np.errstate(all="ignore"):  # a width of 1 is a threshold
        function = *read_texts(dataset, "VOILUTFunction"), "LINEAR"
        return apply_voi_window(values, center[0], width[0], function[0])


def _lookup_table(dataset: "Dataset", sequence: str) -> tuple[Values, int] | None:
    """Return the entries of a sequence's first table and its first input value; `None` without data."""
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
    """Return the mask of padding pixels (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(values.shape, dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((first, last if isinstance(last, int) else first))
    return (values >= low) & (values <= high)


def _shutter_mask(dataset: "Dataset", shape: tuple[int, ...], notes: list[str]) -> Mask:
    """Return the mask of pixels inside the display shutter (PS3.3 C.7.6.11)."""
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
    visible = np.array(mask)
    if not visible.any():
        notes.append("its display shutter is invalid: not used")
        return ~visible
    if not visible.all():
        notes.append("black outside its display shutter")
    return visible


def _resample_to_square_pixels(
    image: Image.Image, dataset: "Dataset", name: str, notes: list[str]
) -> Image.Image:
    tags = "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"  # rows, columns
    high, wide = next((s for tag in tags if len(s := _read_numbers(dataset, tag)) == 2), (1, 1))
    if min(high, wide) <= 0 or abs(high / wide - 1) < _MAX_DISTORTION:
        return image
    notes.append("its pixels are not square: resampled")
    size = round(image.width * max(wide / high, 1)), round(image.height * max(high / wide, 1))
    check_size(*size, name)
    return image.resize(size, Image.Resampling.BILINEAR)
