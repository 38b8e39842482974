"""Whether a checkpoint's file is whole: PyTorch takes what was damaged on the disk for weights."""

from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from torch import Tensor

STORAGE_MEMBER = "/data/"  # in the names of the parts that hold them, before a number
_CHUNK = 2**22  # bytes


def check_zip_integrity(path: Path, but: str = "") -> None:
    """Read a checkpoint's bytes once.

    Args:
        path: of the file.
        but: parts whose name has this in it are left for later; none where it is empty.

    Raises:
        ValueError: it is damaged, or its parts are compressed, as PyTorch's are not and a bomb's would be.
    """
    with ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != ZIP_STORED for part in parts):
            raise ValueError("its parts are compressed, which PyTorch's are not")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts overlap")
        _check_members(archive, [part for part in parts if not but or but not in part.filename])


def check_tensors(path: Path, tensors: list[Tensor]) -> None:
    """Do the same with the tensors of a state alone: they are numbered as they come, and it is the first."""
    sizes = list(
        {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors
        }.values()
    )
    with ZipFile(path) as archive:
        every = {
            part.filename.rpartition(STORAGE_MEMBER)[2]: part
            for part in archive.infolist()
            if STORAGE_MEMBER in part.filename
        }
        parts = [every.get(str(number)) for number in range(len(sizes))]
        theirs = [part for part in parts if part is not None]
        if [part.file_size for part in theirs] != sizes:  # another order: all are looked at
            theirs = list(every.values())
        _check_members(archive, theirs)


def _check_members(archive: ZipFile, parts: list[ZipInfo]) -> None:
    for part in parts:
        with archive.open(part) as content:
            try:
                while content.read(_CHUNK):  # at its end zipfile compares the checksum
                    pass
            except BadZipFile:
                raise ValueError(f"it is damaged, {part.filename} first") from None
