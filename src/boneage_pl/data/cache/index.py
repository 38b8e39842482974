"""Decode and resize images in processes; without pandas, so that they start fast."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from boneage_pl.data.cache.store import ImageIndex, SourceFile
from boneage_pl.data.images.bit_depth import dataset_bit_depths, effective_bits
from boneage_pl.data.images.checks import BadImageError
from boneage_pl.data.images.decode import DICOM_EXTRA, read_file
from boneage_pl.data.images.radiograph import decode_radiograph
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.utils.processes import cores, parallel_map
from boneage_pl.utils.progress import progress

_MAX_IN_FLIGHT = 2**28  # bytes of decoded images not yet written; our choice


def index_images(
    paths: dict[str, str],
    root: Path,
    frame: ResizeSpec,
    workers: int | None = None,
    write: Callable[[int, bytes], None] | None = None,
    label: str = "checking the images",
) -> ImageIndex:
    """Decode and resize every image and return their index.

    Images of more than 8 bits are first scaled by their own largest value, and decoded again if the data
    set's bit depth differs.

    Args:
        paths: file paths below `root`, by id.
        root: folder of the data set.
        frame: preprocessing of the images.
        workers: number of decoding processes; `None` for one per core.
        write: called with an image's position in `paths` and its pixels.
        label: of the progress bar.
    """
    rows = {i: row for row, i in enumerate(paths)}
    files: dict[str, SourceFile] = {}
    bit_depths: list[int] = []
    pending = list(paths)
    while pending:
        decode = partial(_decode_file, root=root, frame=frame, bit_depths=bit_depths)
        limit = _MAX_IN_FLIGHT // frame.size**2
        decoded = parallel_map(decode, [paths[i] for i in pending], workers or cores(), limit)
        for i, (file, pixels) in zip(pending, progress(decoded, len(pending), label), strict=True):
            files[i] = file
            if write and pixels:
                write(rows[i], pixels)
        if bit_depths:
            break
        bit_depths = dataset_bit_depths(file.bit_depth for file in files.values())
        pending = [i for i, f in files.items() if effective_bits(f.bit_depth, bit_depths) != f.bit_depth]
        label = "decoding again at the data set's bit depth"
    return ImageIndex(files, bit_depths)


def _decode_file(path: str, root: Path, frame: ResizeSpec, bit_depths: list[int]) -> tuple[SourceFile, bytes]:
    file = root / path
    try:
        status, content = file.stat(), read_file(file)
    except OSError as error:
        return SourceFile(path, error=f"unreadable ({error.strerror})"), b""
    except BadImageError as error:
        return SourceFile(path, error=error.reason), b""
    source = path, status.st_size, status.st_mtime_ns, hashlib.sha256(content).hexdigest()
    try:
        radiograph = decode_radiograph(content, str(file), bit_depths)
    except BadImageError as error:
        if error.reason.endswith(DICOM_EXTRA):  # retried, in case the extra is installed
            return SourceFile(path, error=error.reason), b""
        return SourceFile(*source, error=error.reason), b""
    pixels = frame.apply(radiograph.image).tobytes()
    return SourceFile(*source, hashlib.sha256(pixels).hexdigest(), radiograph.bit_depth), pixels
