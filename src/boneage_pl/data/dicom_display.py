"""What a viewer shows of a DICOM file's pixels (PS3.3 C.11): lookup tables, windows, padding. No torch."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boneage_pl.data.dicom_pixels import Values, describe_pydicom_error

if TYPE_CHECKING:
    from pydicom import Dataset

_MAX_WINDOW = 1e12  # beyond every window


def apply_display_pipeline(values: Values, dataset: "Dataset") -> tuple[Image.Image, str]:
    """Return values as a viewer shows them, and why a window was not used."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        deep = values.dtype.itemsize > 1
        colours = _to_8_bits(values, 0, np.iinfo(values.dtype).max) if deep else values
        return Image.fromarray(colours.astype(np.uint8)[..., :3], "RGB").convert("L"), ""
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
        darkest, brightest = apply_windowing(np.array([-_MAX_WINDOW, _MAX_WINDOW]), dataset)
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
