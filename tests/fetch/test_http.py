import errno
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from urllib3 import Retry

from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch.http import _Session, download_file, partial_path
from tests.fetch.archive_server import Site, noise, serving

CONTENT = noise(1, 300_000)
PART = 6 * 2**14  # bytes: whole chunks, none of which a broken connection loses
TWICE = Retry(2, backoff_factor=0.01)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(file=CONTENT)) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.zip"


def get(site: Site, target: Path, name: str = "file") -> str:
    return download_file(site.url + name, target, 0.5, TWICE)


def begin(site: Site, target: Path, size: int) -> None:
    """Leave a partial download of `size` bytes."""
    site.break_after = [size]
    with pytest.raises(BoneAgeError, match="the same command resumes"):
        download_file(site.url + "file", target, 1, Retry(0))
    assert partial_path(target).read_bytes() == CONTENT[:size]
    assert not target.exists()


def assert_whole(target: Path, content: bytes = CONTENT) -> None:
    assert target.read_bytes() == content
    assert [f.name for f in target.parent.iterdir()] == [target.name]  # no partial file


def test_broken_connections_resume(site: Site, target: Path):
    site.break_after = [PART, 2**14]
    assert get(site, target) == site.tag(CONTENT)
    assert_whole(target)
    assert site.gets("file") == [(None, 200), (f"bytes={PART}-", 206), (f"bytes={PART + 2**14}-", 206)]


def test_new_process_resumes(site: Site, target: Path):
    begin(site, target, PART)
    get(site, target)
    assert_whole(target)
    assert site.gets("file")[-1] == (f"bytes={PART}-", 206)


def test_stalled_connection_resumes(site: Site, target: Path):
    site.stall_after = 200_000  # the rest is short enough
    get(site, target)
    assert_whole(target)
    assert [status for _, status in site.gets("file")] == [200, 206]


def test_tries_with_progress_do_not_count(site: Site, target: Path):
    site.break_after = [2**15] * 5
    download_file(site.url + "file", target, 1, Retry(1, backoff_factor=0))
    assert_whole(target)


@pytest.mark.parametrize("ranges", [True, False])
def test_tries_without_progress_are_limited(site: Site, target: Path, ranges: bool):
    site.ranges, site.break_after = ranges, [PART] + [0 if ranges else PART] * 9
    with pytest.raises(BoneAgeError, match="interrupted after"):
        get(site, target)
    assert len(site.gets("file")) == 1 + 2  # the first successful attempt and two more


def test_short_file_is_never_accepted(site: Site, target: Path):
    site.ranges, site.declared = False, {"file": len(CONTENT) + 1}
    with pytest.raises(BoneAgeError, match="interrupted"):
        get(site, target)
    assert not target.exists()


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("size", [300_000, 310_000, 60_000])
def test_changed_file_restarts(site: Site, target: Path, heeds_if_range: bool, size: int):
    begin(site, target, PART)
    site.files["file"], site.if_range = noise(2, size), heeds_if_range
    get(site, target)
    assert_whole(target, noise(2, size))


@pytest.mark.parametrize("change", [{"ranges": False}, {"weak": True}, {"shift": 7}])
def test_unproven_part_is_not_continued(site: Site, target: Path, change: dict[str, object]):
    if "weak" in change:
        vars(site).update(change)
    begin(site, target, PART)
    vars(site).update(change)
    get(site, target)
    assert_whole(target)
    assert site.gets("file")[-1][1] == 200


def test_part_of_another_file_is_not_continued(site: Site, target: Path):
    begin(site, target, PART)
    site.files["other"], site.if_range = noise(3, 300_000), False
    get(site, target, "other")
    assert_whole(target, noise(3, 300_000))


def test_whole_part_needs_no_request(site: Site, target: Path):
    begin(site, target, PART)
    partial_path(target).write_bytes(CONTENT)
    get(site, target)
    assert_whole(target)
    assert len(site.gets("file")) == 1


def test_busy_server_is_tried_again_and_refusing_one_is_not(site: Site, target: Path):
    site.errors = [503, 429]
    get(site, target)
    assert_whole(target)
    site.errors = [403]
    with pytest.raises(BoneAgeError, match="403 Forbidden"):
        get(site, target)
    assert len(site.gets("file")) == 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/file", "http://no-such-host.invalid/file"])
def test_unreachable_server_is_one_error(url: str, target: Path):
    with pytest.raises(BoneAgeError, match=r"interrupted after 0 bytes: [^\n]+\nCheck the network"):
        download_file(url, target, 1, Retry(1, backoff_factor=0))


@pytest.mark.parametrize("elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1:1/file"])
def test_redirect_leads_to_no_other_protocol(site: Site, target: Path, elsewhere: str):
    site.redirect = elsewhere
    with pytest.raises(BoneAgeError, match="cannot be downloaded"):
        get(site, target)
    assert len(site.gets("file")) == 1


@pytest.mark.parametrize(("to", "followed"), [("http://b/", False), ("https://b/", True), ("/c", True)])
def test_redirect_never_leaves_https(to: str, followed: bool):
    response = requests.Response()
    response.url, response.status_code, response.headers["Location"] = "https://a/", 302, to
    if followed:
        assert _Session().get_redirect_target(response) == to
    else:
        with pytest.raises(requests.exceptions.InvalidSchema, match="https"):
            _Session().get_redirect_target(response)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://h/a.zip", "/a.zip", "http:///a.zip", "http://["]
)
def test_only_http_urls_are_downloaded(url: str, target: Path):
    with pytest.raises(BoneAgeError, match="cannot be downloaded"):
        download_file(url, target, 1, TWICE)


@pytest.mark.parametrize(("words", "tries"), [("CERTIFICATE_VERIFY_FAILED", 1), ("UNEXPECTED_EOF", 3)])
def test_untrusted_certificate_is_final_and_broken_encryption_is_not(
    target: Path, monkeypatch: pytest.MonkeyPatch, words: str, tries: int
):
    urls: list[str] = []

    def failing(_: object, url: str, **__: object) -> None:
        urls.append(url)
        raise requests.exceptions.SSLError(words)

    monkeypatch.setattr(_Session, "get", failing)
    with pytest.raises(BoneAgeError, match=words):
        download_file("https://host/file", target, 1, TWICE)
    assert len(urls) == tries


def test_disk_errors_are_no_network_errors(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BoneAgeError, match="The disk is full"):
        get(site, target)
    assert len(site.gets("file")) == 1


@pytest.mark.parametrize(("free", "enough"), [(900_000 - PART, True), (899_999 - PART, False)])
def test_free_space_is_checked_before_the_first_byte(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch, free: int, enough: bool
):
    begin(site, target, PART)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with nullcontext() if enough else pytest.raises(BoneAgeError, match="are needed"):
        download_file(site.url + "file", target, 1, TWICE, reserve=2)
    assert target.exists() == enough
