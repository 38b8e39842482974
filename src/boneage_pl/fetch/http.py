"""Resumable downloads over HTTP."""

import json
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
from requests import exceptions
from tqdm import tqdm
from urllib3 import Retry
from urllib3.exceptions import MaxRetryError

from boneage_pl import __version__
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import check_free_space, format_bytes, translate_disk_errors, write_text

log = logging.getLogger(__name__)
_CHUNK = 1 << 14  # bytes; lost at most if a connection breaks
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


class _Session(requests.Session):
    """A session that rejects redirects from https to http."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and resp.url.startswith("https:") and urljoin(resp.url, target).startswith("http:"):
            raise exceptions.InvalidSchema(f"the server redirects from https to {target}")
        return target


def partial_path(target: Path) -> Path:
    """Return the path of the incomplete download of `target`."""
    return target.with_name(f"{target.name}.part")


def download_file(url: str, target: Path, timeout: float, policy: Retry, reserve: float = 0) -> str:
    """Download `url` to `target`, resuming a partial download of the same file, and return its ETag.

    Args:
        url: http or https address.
        target: a file in an existing folder.
        timeout: seconds without data after which a connection is broken.
        policy: number of retries without progress, and waiting times.
        reserve: additional free disk space, as a multiple of the file's size.

    Raises:
        BoneAgeError: an error of the server, repeated broken connections, or an error of the disk.
    """
    part, retry = partial_path(target), policy
    log.info("downloading %s", url)
    with _Session() as session:
        session.headers.update({"User-Agent": f"boneage_pl/{__version__}", "Accept-Encoding": "identity"})
        while True:
            had = _size(part)
            try:
                etag = _continue(session, url, part, timeout, reserve)
                part.replace(target)
                _record_path(part).unlink(missing_ok=True)
                return etag
            except requests.RequestException as error:
                final = isinstance(
                    error, ValueError | exceptions.TooManyRedirects
                )  # ValueError: invalid address
                if final or "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise BoneAgeError(f"{url} cannot be downloaded: {error}.") from error
                received, reason = format_bytes(_size(part)), _reason(error)
                try:
                    retry = (policy if _size(part) > had else retry).increment("GET", url, error=error)
                except MaxRetryError:
                    raise BoneAgeError(
                        f"{url}: interrupted after {received}: {reason}.\n"
                        "Check the network and the proxy; the same command resumes the download."
                    ) from error
                log.warning("%s: interrupted after %s (%s); retrying", target.name, received, reason)
                retry.sleep(error.response.raw if error.response is not None else None)
            except OSError as error:
                with translate_disk_errors(part):
                    raise error from None


def _continue(session: requests.Session, url: str, part: Path, timeout: float, reserve: float) -> str:
    """Complete `part` over one connection and return the file's ETag."""
    record = _read_record(part)
    proof = record.get("etag", "") if record.get("url") == url else ""
    had = _size(part) if proof.startswith('"') else 0  # a weak ETag does not identify the bytes
    if had and had == record.get("size"):
        return str(proof)
    headers = {"Range": f"bytes={had}-", "If-Range": proof} if had else {}
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status, etag = response.status_code, response.headers.get("ETag", "")
        range_ = response.headers.get("Content-Range", "")
        if status == 416 or (status == 206 and (etag != proof or not range_.startswith(f"bytes {had}-"))):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the server's file has changed")
        if status in _TEMPORARY:
            raise requests.ConnectionError(f"HTTP {status}", response=response)
        if not response.ok:
            raise BoneAgeError(
                f"{url} cannot be downloaded: HTTP {status} {response.reason}.\n"
                "The archive may have moved: see the RSNA Pediatric Bone Age Challenge (2017) on rsna.org,\n"
                "and pass the address as source= or in the archive's option (--cfg job lists them)."
            )
        had = had if status == 206 else 0
        left = response.headers.get("Content-Length", "")
        size = had + int(left) if left.isdecimal() else None
        if size is not None:
            check_free_space([(part.parent, size - had + int(reserve * size))])
        if not had:  # truncate before the record, so that old bytes never belong to the new file
            part.write_bytes(b"")
            write_text(_record_path(part), json.dumps({"url": url, "etag": etag, "size": size}))
        bar = tqdm(total=size, initial=had, unit="B", unit_scale=True, desc=part.stem, disable=None)
        with bar, part.open("ab") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if size is not None and _size(part) != size:
        raise requests.ConnectionError(f"the connection closed before {format_bytes(size)} were received")
    return etag


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _record_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_record(part: Path) -> dict[str, Any]:
    """Return `url`, `etag` and `size` of a partial download, if known."""
    try:
        return dict(json.loads(_record_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _reason(error: BaseException) -> str:
    """Return the message of the innermost error."""
    while error.__context__ is not None:
        error = error.__context__
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
