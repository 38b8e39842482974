"""Check the original files when no cache is used."""

import getpass
import hashlib
import json
import os
import stat
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from boneage_pl.data.cache.build import measure_bit_depths
from boneage_pl.data.cache.store import VERSION, ImageIndex
from boneage_pl.data.images.bit_depth import dataset_bit_depths, effective_bits
from boneage_pl.data.images.decode import BadImageError, decode_and_resize, read_file
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.utils.files import atomic_write
from boneage_pl.utils.processes import cores, file_lock, parallel_map
from boneage_pl.utils.progress import progress

File = list[str | int]  # its path, its size and its time on disk; of one that is not there the path alone


def scan_originals(paths: dict[str, str], frame: ResizeSpec, workers: int | None = None) -> ImageIndex:
    """Return what is known of the images: found out here, or by a process before this one.

    What was found lies in a temporary folder of the user's, and is taken over as long as every file has the
    size and time on disk that it had; files that could not be used are tried again.

    Args:
        paths: the files by id.
        frame: the square that they are brought into.
        workers: processes that decode; `None` for one a core.
    """
    workers = workers or cores()
    files = {i: _file(path) for i, path in paths.items()}
    with ExitStack() as held, suppress(OSError):  # where there is no such folder, each looks for itself
        kept = _folder() / f"{_name(files, frame)}.json"
        held.enter_context(file_lock(kept.with_suffix(".lock"), "looks at the original images"))
        scanned = _load_known(kept, files)
        if scanned and not any(_scan_file((paths[i], frame, 0))[0] for i in scanned.errors):
            return scanned
        scanned = _scan(paths, frame, workers)
        content = {"version": VERSION, "files": files, "examined": asdict(scanned)}
        with suppress(OSError):
            atomic_write(kept, json.dumps(content), flush=False)
        return scanned
    return _scan(paths, frame, workers)


def _file(path: str) -> File:
    with suppress(OSError):
        status = Path(path).stat()
        return [str(Path(path).absolute()), status.st_size, status.st_mtime_ns]
    return [str(Path(path).absolute())]


def _name(files: dict[str, File], frame: ResizeSpec) -> str:
    """Return what tells these files, in this square, from those of another data set."""
    return hashlib.sha256(
        json.dumps([str(frame), [file[0] for file in files.values()]]).encode()
    ).hexdigest()[:16]


def _folder() -> Path:
    """Return the temporary folder of this user.

    Raises:
        OSError: it cannot be made, or another user has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"boneage_pl-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        raise PermissionError(f"{folder} is not this user's")
    return folder


def _load_known(kept: Path, files: dict[str, File]) -> ImageIndex | None:
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        if (content["version"], content["files"]) == (VERSION, files):
            return ImageIndex(**content["examined"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _scan(paths: dict[str, str], frame: ResizeSpec, workers: int) -> ImageIndex:
    depths = measure_bit_depths(paths, Path(), workers, {})
    known = dataset_bit_depths(depths.values())
    tasks = [(path, frame, effective_bits(depths[i], known)) for i, path in paths.items()]
    checked = parallel_map(_scan_file, tasks, workers)
    results = dict(zip(paths, progress(checked, len(paths), "checking the original images"), strict=True))
    return ImageIndex(
        file_sha256={i: sha256 for i, (sha256, _, _) in results.items()},
        pixel_sha256={i: content for i, (_, content, _) in results.items()},
        depths=depths,
        bit_depths=known,
        errors={i: why for i, (_, _, why) in results.items() if why},
    )


def _scan_file(task: tuple[str, ResizeSpec, int]) -> tuple[str, str, str]:
    """Return the hashes of a file and of its pixels, and what it is instead where it cannot be used."""
    path, frame, used = task
    try:
        content = read_file(path)
        pixels = decode_and_resize(content, path, frame, used)
    except BadImageError as error:
        return "", "", error.reason
    return hashlib.sha256(content).hexdigest(), hashlib.sha256(pixels).hexdigest(), ""
