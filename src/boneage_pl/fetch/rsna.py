"""The image sets of the RSNA 2017 challenge: archives, files and counts."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch.http import partial_path
from boneage_pl.utils.files import write_text


@dataclass(frozen=True)
class RadiographSet:
    """An image set of the challenge.

    Args:
        name: in `conf/download.yaml`.
        root: target folder, also of the archives.
        count: number of images and table rows.
        archives: SHA-256 (or `None`) by address, in the order of the downloads.
    """

    name: str
    root: Path
    count: int
    archives: dict[str, str | None]

    @property
    def record_path(self) -> Path:
        """Record of the extracted archives."""
        return self.root / ".download.json"

    def archive(self, url: str) -> Path:
        """Return the path of the archive from `url` until it is extracted."""
        return self.root / PurePosixPath(urlsplit(url).path).name

    def pending(self) -> list[str]:
        """Return the addresses of the archives to extract; none if the set is complete already."""
        done = self._extracted()
        urls = [url for url in self.archives if self.archive(url).name not in done]
        started = any(f.exists() for u in urls for f in (self.archive(u), partial_path(self.archive(u))))
        if urls and not started:
            with suppress(BoneAgeError):
                self.check()
                return []
        return urls

    def record(self, archive: str, receipt: dict[str, Any]) -> None:
        """Record an extracted archive with address, ETag, bytes, SHA-256 and number of files."""
        done = self._extracted() | {archive: receipt}
        write_text(self.record_path, json.dumps({"unpacked": done}, indent=2) + "\n")

    def check(self) -> None:
        """Raise `BoneAgeError` unless all images and rows exist."""
        from boneage_pl.data.tables.load import read_table  # imports pandas

        hint = f"To download it again, delete {self.record_path} and run the same command."
        try:
            table = read_table(self.root)
        except BoneAgeError as error:
            raise BoneAgeError(f"The {self.name} set is incomplete. {error}\n{hint}") from error
        if len(table) != self.count:
            raise BoneAgeError(
                f"The {self.name} set is incomplete: {self.root} has {len(table):,} rows with an image, not "
                f"{self.count:,}.\n{hint}"
            )

    def _extracted(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.record_path.read_text(encoding="utf-8"))["unpacked"])
        except (OSError, ValueError, TypeError, KeyError):
            return {}  # unreadable: count or download again
