"""Resumable downloads over HTTP."""

import http.client
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib import error, request
from urllib.parse import urlsplit

from tqdm import tqdm

from boneage_pl import __version__
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import format_bytes, translate_disk_errors, write_text

_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}  # what a server answers when it is busy or ailing
_NO_HEAD = {405, 501}

# Without the handlers for file:, ftp: and data:, so that no redirection leads to one of those either.
_opener = request.OpenerDirector()
for _handler in (
    request.ProxyHandler,
    request.UnknownHandler,
    request.HTTPHandler,
    request.HTTPSHandler,
    request.HTTPDefaultErrorHandler,
    request.HTTPRedirectHandler,
    request.HTTPErrorProcessor,
):
    _opener.add_handler(_handler())


class InterruptedDownloadError(Exception):
    """A server could not be reached or stopped answering, and may do better later; says the reason."""


def check_url(url: str) -> None:
    """Raise `BoneAgeError` unless `url` is a complete http or https address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", url) or not url.isascii():
        raise BoneAgeError(f"{url!r} is not an address that can be fetched: http:// or https://, no spaces.")


def remote_size(url: str, timeout: float) -> int | None:
    """Ask the server how many bytes `url` has; `None` where it does not say.

    Raises:
        BoneAgeError: the server cannot be reached, or has no such file. There is no retry.
    """
    try:
        with open_url(url, {}, timeout, "HEAD") as response:
            return content_length(response.headers)
    except InterruptedDownloadError as reason:
        raise BoneAgeError(
            f"{url} cannot be reached: {reason}.\n"
            "Check the network (and the proxy, if there is one), then run the same command again."
        ) from reason


def open_url(url: str, headers: dict[str, str], timeout: float, method: str = "GET") -> Any:
    """Return the server's answer (an `http.client.HTTPResponse`): 200, or 206 or 416 to a range.

    Raises:
        InterruptedDownloadError: it may be worth another try.
        BoneAgeError: it is not.
    """
    headers = {"User-Agent": f"boneage_pl/{__version__}", "Accept-Encoding": "identity", **headers}
    try:
        response = _opener.open(request.Request(url, headers=headers, method=method), timeout=timeout)
    except error.HTTPError as answer:
        if answer.code == 416 and "Range" in headers:
            return answer
        answer.close()
        if method == "HEAD" and answer.code in _NO_HEAD:
            return open_url(url, headers, timeout)
        raise _check_response(url, answer) from answer
    except (OSError, http.client.HTTPException) as failed:
        raise describe_failure(failed, url) from failed
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise BoneAgeError(
            f"{url} answers with a web page instead of an archive.\n"
            "A network that wants a login first does that. Open the address in a browser, then try again."
        )
    return response


def describe_failure(failed: OSError | http.client.HTTPException, url: str) -> Exception:
    """Return what to raise for a connection to `url` that failed."""
    reason = failed.reason if isinstance(failed, error.URLError) else failed
    if isinstance(reason, ssl.SSLCertVerificationError):
        return BoneAgeError(
            f"{url}: the server's certificate is not trusted ({reason.verify_message}).\n"
            "Check this machine's clock and certificates, and whether a proxy stands between."
        )
    if isinstance(reason, TimeoutError):
        return InterruptedDownloadError("no answer in time")
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return InterruptedDownloadError(text.rstrip(".") or type(reason).__name__)


def content_length(headers: Message) -> int | None:
    """Return the bytes that an answer says follow, or `None` where it does not say."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _check_response(url: str, answer: error.HTTPError) -> Exception:
    if answer.code in _MAY_PASS:
        return InterruptedDownloadError(f"the server answers {answer.code} {answer.reason}")
    return BoneAgeError(
        f"{url} cannot be fetched: the server answers {answer.code} {answer.reason}.\n"
        "The archive may have moved: look for it on the RSNA Pediatric Bone Age Challenge (2017) page\n"
        "(rsna.org), and pass its address with source= or the archive's own option (--cfg job lists them)."
    )


_CHUNK = 1 << 20  # bytes
_LONGEST_WAIT = 60  # seconds between two tries


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a server.

    Args:
        timeout: seconds without a byte, after which a connection counts as broken.
        retries: tries in a row that bring no byte more than was had before, until the transfer is given up.
        wait: seconds before the first new try; doubled for each further one, up to a minute.
    """

    timeout: float
    retries: int
    wait: float


@dataclass(frozen=True)
class _Origin:
    """What a part file is a part of, kept beside it: another file is never appended to it."""

    url: str
    validator: str  # the server's ETag or else Last-Modified, as `If-Range` takes it
    size: int | None  # bytes of the whole file


def partial_path(target: Path) -> Path:
    """Return where the bytes of `target` gather until it is whole."""
    return target.with_name(f"{target.name}.part")


def download_file(url: str, target: Path, patience: RetryPolicy) -> None:
    """Fetch `url` into `target`, continuing from its part file where that is a part of the same file.

    Raises:
        BoneAgeError: the server refuses, the connection keeps breaking off, or the disk refuses.
    """
    part = partial_path(target)
    started, most, failures = time.monotonic(), size_on_disk(part), 0
    print_line(f"fetching {url}" + (f", {format_bytes(most)} are here already" if most else ""))
    while True:
        try:
            _attempt(url, part, patience.timeout)
            break
        except InterruptedDownloadError as reason:
            failures = 1 if size_on_disk(part) > most else failures + 1
            most = max(most, size_on_disk(part))
            _give_up_or_wait(url, part, reason, failures, patience)
    with translate_disk_errors(target):
        part.replace(target)
        _origin_file(part).unlink(missing_ok=True)
    print_line(
        f"fetched {target.name}, {format_bytes(size_on_disk(target))} in {time.monotonic() - started:.0f} s"
    )


def size_on_disk(path: Path) -> int:
    """Return a file's bytes, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def print_line(line: str) -> None:
    """Print a line on standard error, unless that is a terminal: there a progress bar says it."""
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def _give_up_or_wait(url: str, part: Path, reason: Exception, failures: int, patience: RetryPolicy) -> None:
    if failures > patience.retries:
        raise BoneAgeError(
            f"{url} broke off after {format_bytes(size_on_disk(part))}: {reason}.\n"
            f"What has come is kept in {part}; the same command continues from there."
        ) from reason
    wait = min(patience.wait * 2 ** (failures - 1), _LONGEST_WAIT)
    had = format_bytes(size_on_disk(part))
    tqdm.write(f"{part.stem} broke off after {had} ({reason}); again in {wait:g} s", file=sys.stderr)
    time.sleep(wait)


def _attempt(url: str, part: Path, timeout: float) -> None:
    """Bring `part` to its end over one connection, or raise `InterruptedDownloadError`."""
    origin = _read_origin(part)
    had = size_on_disk(part) if origin and origin.url == url else 0
    if origin and had and had == origin.size:
        return  # stopped between the last byte and the move into place
    request = {"Range": f"bytes={had}-", "If-Range": origin.validator} if origin and had else {}
    with open_url(url, request, timeout) as response:
        if response.status == 416 and re.fullmatch(rf"bytes \*/{had}", _range(response)):
            return
        start = had if response.status in (206, 416) else 0
        if response.status in (206, 416) and not (origin and _continues(response, origin, had)):
            _discard(part)
            raise InterruptedDownloadError("the server's file is not the one that was begun")
        left = content_length(response.headers)
        whole = None if left is None else start + left
        if not start:
            _start_file(url, part, response.headers, whole)
        _append_chunks(response, part, start, whole)


def _continues(response: Any, origin: _Origin, had: int) -> bool:
    """Whether a 206 is the rest of the file that was begun; a server may overlook `If-Range`."""
    given = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", _range(response))
    if not given or int(given[1]) != had:
        return False
    if origin.size is not None and given[3] != "*" and int(given[3]) != origin.size:
        return False
    kind = "ETag" if origin.validator.startswith('"') else "Last-Modified"
    return bool(response.headers.get(kind, origin.validator) == origin.validator)


def _range(response: Any) -> str:
    return str(response.headers.get("Content-Range", "")).strip()


def _start_file(url: str, part: Path, headers: Message, whole: int | None) -> None:
    """Empty the part file, then say whose it is: in this order no old byte passes for one of the new file."""
    with translate_disk_errors(part):
        part.open("wb").close()
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")  # W/ proves too little
    origin = _Origin(url, validator, whole)
    write_text(_origin_file(part), json.dumps(asdict(origin)))


def _append_chunks(response: Any, part: Path, start: int, whole: int | None) -> None:
    with (
        translate_disk_errors(part),
        tqdm(total=whole, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
        part.open("r+b") as file,
    ):
        file.seek(start)
        for chunk in _chunks(response, None if whole is None else whole - start):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if whole is not None and size_on_disk(part) != whole:
        raise InterruptedDownloadError(f"the connection closed before {format_bytes(whole)} had come")


def _chunks(response: Any, left: int | None) -> Iterator[bytes]:
    """Yield at most `left` bytes as they come, so that a broken connection loses none that had come."""
    while left is None or left > 0:
        try:
            chunk = response.read1(_CHUNK if left is None else min(_CHUNK, left))
        except (OSError, http.client.HTTPException) as failed:
            raise describe_failure(failed, response.url) from failed
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


def _origin_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_origin(part: Path) -> _Origin | None:
    """Return whose part it is; `None` where that is unknown or could not be proven to the server."""
    try:
        origin = _Origin(**json.loads(_origin_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return origin if origin.validator else None


def _discard(part: Path) -> None:
    with translate_disk_errors(part):
        _origin_file(part).unlink(missing_ok=True)
        part.unlink(missing_ok=True)
