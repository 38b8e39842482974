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
    """One of the challenge's sets.

    Args:
        name: of the set in `conf/download.yaml`.
        root: the folder that it is extracted into; the archives lie there meanwhile.
        count: its images, and the rows of its table.
        archives: SHA-256 (or `None`) by address, in the order in which they are downloaded.
    """

    name: str
    root: Path
    count: int
    archives: dict[str, str | None]

    @property
    def record_path(self) -> Path:
        """The file that records which archives have been extracted."""
        return self.root / ".download.json"

    def archive(self, url: str) -> Path:
        """Return where the archive at `url` lies until it is extracted."""
        return self.root / PurePosixPath(urlsplit(url).path).name

    def pending(self) -> list[str]:
        """Return the addresses of the archives that are not extracted yet.

        A set that is whole with no archive lying there came from elsewhere, from Kaggle say: none is.
        """
        done = self._extracted()
        urls = [url for url in self.archives if self.archive(url).name not in done]
        begun = any(f.exists() for u in urls for f in (self.archive(u), partial_path(self.archive(u))))
        if urls and not begun:
            with suppress(BoneAgeError):
                self.check()
                return []
        return urls

    def record(self, archive: str, receipt: dict[str, Any]) -> None:
        """Record that an archive was extracted: its address, ETag, bytes, SHA-256 and number of files."""
        done = self._extracted() | {archive: receipt}
        write_text(self.record_path, json.dumps({"unpacked": done}, indent=2) + "\n")

    def check(self) -> None:
        """Raise `BoneAgeError`, naming the difference, unless every image and row is there."""
        from boneage_pl.data.tables.load import read_table  # imports pandas

        again = f"To download what is missing again, delete {self.record_path} and run the same command."
        try:
            table = read_table(self.root)
        except BoneAgeError as error:
            raise BoneAgeError(f"The {self.name} set is not whole. {error}\n{again}") from error
        if len(table) != self.count:
            raise BoneAgeError(
                f"The {self.name} set is not whole: {self.root} holds {len(table):,} rows with an image, not "
                f"{self.count:,}.\n{again}"
            )

    def _extracted(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.record_path.read_text(encoding="utf-8"))["unpacked"])
        except (OSError, ValueError, TypeError, KeyError):
            return {}  # one that cannot be read costs no more than counting or downloading again
