"""The image sets of the RSNA 2017 challenge: files, counts and archives."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch.http import partial_path
from boneage_pl.utils.files import write_text


@dataclass(frozen=True)
class RadiographSet:
    """One of the challenge's sets.

    Args:
        name: what it is called in `conf/download.yaml`.
        root: the folder it is unpacked into; the archives lie there meanwhile.
        count: the images it has, and the rows of its table.
        urls: the addresses of its archives, in the order in which they are fetched.
    """

    name: str
    root: Path
    count: int
    urls: list[str]

    @property
    def marker(self) -> Path:
        """The file that remembers which archives are unpacked, once these are gone."""
        return self.root / ".download.json"

    def archive(self, url: str) -> Path:
        """Return where the archive at `url` lies from its last byte until it is unpacked."""
        return self.root / PurePosixPath(urlsplit(url).path).name

    def pending(self) -> list[str]:
        """Return the addresses of the archives that are not unpacked yet.

        A set that is whole with no archive lying there came from elsewhere, from Kaggle say: none is.
        """
        done = self._unpacked()
        urls = [url for url in self.urls if self.archive(url).name not in done]
        begun = any(f.exists() for u in urls for f in (self.archive(u), partial_path(self.archive(u))))
        return [] if urls and not begun and self._is_complete() else urls

    def mark_downloaded(self, url: str, size: int, files: int) -> None:
        """Record that the archive at `url`, of `size` bytes, is unpacked into that many files."""
        done = self._unpacked() | {self.archive(url).name: {"url": url, "bytes": size, "files": files}}
        write_text(self.marker, json.dumps({"unpacked": done}, indent=2) + "\n")

    def check(self) -> None:
        """Raise `BoneAgeError`, naming the difference, unless every image and row is there."""
        again = f"To have what is missing fetched again, delete {self.marker} and run the same command."
        try:
            images, rows = count_images(self.root)
        except BoneAgeError as error:
            raise BoneAgeError(f"The {self.name} set is not whole. {error}\n{again}") from error
        if (images, rows) != (self.count, self.count):
            raise BoneAgeError(
                f"The {self.name} set is not whole: {self.count:,} images and as many rows must be there,\n"
                f"but {self.root} holds {images:,} images and {rows:,} rows.\n{again}"
            )

    def _is_complete(self) -> bool:
        try:
            self.check()
        except BoneAgeError:
            return False
        return True

    def _unpacked(self) -> dict[str, object]:
        try:
            return dict(json.loads(self.marker.read_text(encoding="utf-8"))["unpacked"])
        except (OSError, ValueError, TypeError, KeyError):
            return {}  # none yet; one that cannot be read costs no more than counting or fetching again


def count_images(root: Path) -> tuple[int, int]:
    """Return (images, rows) of the set under `root`, found as training and evaluation find it.

    Raises:
        BoneAgeError: no table is recognized, or images of its rows are missing.
    """
    from boneage_pl.data.tables.load import (
        read_table,  # imports pandas: not before there is something to read
    )

    table = read_table(root)
    return table["path"].nunique(), len(table)
