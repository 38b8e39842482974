"""Open an http or https address, and say in plain words why it does not answer."""

import http.client
import re
import ssl
from email.message import Message
from typing import Any
from urllib import error, request
from urllib.parse import urlsplit

from boneage_pl import __version__
from boneage_pl.errors import BoneAgeError

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
        BoneAgeError: the server cannot be reached, or has no such file. It is asked once only.
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
