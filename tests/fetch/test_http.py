from collections.abc import Iterator
from pathlib import Path

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch.http import RetryPolicy, check_url, download_file, partial_path, remote_size
from tests.fetch.archive_server import Site, picture, serving

CONTENT = picture(1, 300_000)
QUICK = RetryPolicy(timeout=0.3, retries=2, wait=0.01)


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


def begin(site: Site, target: Path, size: int) -> None:
    """Leave the first `size` bytes behind, as a transfer does that breaks off for good."""
    site.break_after = [size]
    with pytest.raises(BoneAgeError, match="the same command continues"):
        download_file(site.url + "file", target, RetryPolicy(timeout=1, retries=0, wait=0))
    assert partial_path(target).read_bytes() == CONTENT[:size]
    assert not target.exists()


def assert_whole(target: Path, content: bytes = CONTENT) -> None:
    assert target.read_bytes() == content
    assert [f.name for f in target.parent.iterdir()] == [target.name]  # nothing is left beside it


def test_download_completes_with_start_and_end_lines(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
):
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets() == [(None, 200)]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("fetching http://127.0.0.1")
    assert lines[1].startswith("fetched file.zip, 300 kB")


def test_download_resumes_after_broken_connection(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
):
    site.break_after = [100_000, 50_000]
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets() == [(None, 200), ("bytes=100000-", 206), ("bytes=150000-", 206)]
    assert "broke off after 100 kB" in capsys.readouterr().err


def test_download_resumes_in_new_process(site: Site, target: Path):
    begin(site, target, 120_000)
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == ("bytes=120000-", 206)


def test_retries_with_progress_do_not_count(site: Site, target: Path):
    site.break_after = [50_000] * 5
    download_file(site.url + "file", target, RetryPolicy(timeout=1, retries=1, wait=0))
    assert_whole(target)


def test_retries_without_progress_are_limited(site: Site, target: Path):
    site.break_after = [100_000] + [0] * 9
    with pytest.raises(BoneAgeError, match="broke off after 100 kB: the connection closed"):
        download_file(site.url + "file", target, QUICK)
    assert len(site.gets()) == 1 + 2  # the first try that brought something, and two more
    assert partial_path(target).stat().st_size == 100_000


def test_server_that_never_resumes_is_limited(site: Site, target: Path):
    site.ranges = False
    site.break_after = [100_000] * 9
    with pytest.raises(BoneAgeError, match="broke off"):
        download_file(site.url + "file", target, QUICK)
    assert len(site.gets()) == 1 + 2


def test_short_response_is_never_accepted(site: Site, target: Path):
    site.ranges = False
    site.declared["file"] = len(CONTENT) + 1
    with pytest.raises(BoneAgeError, match="the connection closed before"):
        download_file(site.url + "file", target, QUICK)
    assert not target.exists()


def test_stalled_connection_times_out_and_resumes(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
):
    site.stall_after = 200_000  # the rest is shorter and comes
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert "no answer in time" in capsys.readouterr().err
    assert site.gets() == [(None, 200), ("bytes=200000-", 206)]


def test_server_without_ranges_restarts(site: Site, target: Path):
    begin(site, target, 100_000)
    site.ranges = False
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == ("bytes=100000-", 200)


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("size", [300_000, 310_000, 60_000])
def test_changed_file_restarts(site: Site, target: Path, heeds_if_range: bool, size: int):
    begin(site, target, 100_000)
    changed = picture(2, size)
    site.put(file=changed)
    site.if_range = heeds_if_range
    download_file(site.url + "file", target, QUICK)
    assert_whole(target, changed)


def test_changed_size_restarts(site: Site, target: Path):
    begin(site, target, 100_000)
    site.put(file=picture(2, 310_000))
    site.if_range = site.etag = False
    download_file(site.url + "file", target, QUICK)
    assert_whole(target, picture(2, 310_000))


def test_other_url_does_not_resume_part(site: Site, target: Path):
    begin(site, target, 100_000)
    site.put(other=picture(3, 300_000))
    site.if_range = site.etag = False  # a server that would send the rest of anything
    download_file(site.url + "other", target, QUICK)
    assert_whole(target, picture(3, 300_000))


def test_response_at_other_offset_is_not_appended(site: Site, target: Path):
    begin(site, target, 100_000)
    site.shift = 7
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == (None, 200)


@pytest.mark.parametrize(("proof", "weak"), [(False, False), (True, True)])
def test_missing_validator_restarts(site: Site, target: Path, proof: bool, weak: bool):
    site.etag, site.weak = proof, weak
    begin(site, target, 100_000)
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == (None, 200)


def test_complete_part_needs_no_request(site: Site, target: Path):
    begin(site, target, 100_000)
    partial_path(target).write_bytes(CONTENT)
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert len(site.gets()) == 1


@pytest.mark.parametrize(("extra", "statuses"), [(b"", [416]), (b"more", [416, 200])])
def test_range_not_satisfiable_means_complete_or_wrong(
    site: Site, target: Path, extra: bytes, statuses: list[int]
):
    begin(site, target, 100_000)
    partial_path(target).write_bytes(CONTENT + extra)
    note = partial_path(target).with_name("file.zip.part.json")
    note.write_text(note.read_text().replace("300000", "null"))  # a server that did not say the size
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert [status for _, status in site.gets()[1:]] == statuses


def test_busy_server_is_retried(site: Site, target: Path):
    site.errors = [503, 429]
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)


@pytest.mark.parametrize(("status", "words"), [(403, "403 Forbidden"), (410, "410 Gone")])
def test_client_error_is_final(site: Site, target: Path, status: int, words: str):
    site.errors = [status]
    with pytest.raises(BoneAgeError, match=f"{words}.*\n.*rsna.org|{words}"):
        download_file(site.url + "file", target, QUICK)
    assert len(site.gets()) == 1


def test_html_page_is_no_archive(site: Site, target: Path):
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(BoneAgeError, match="web page"):
        download_file(site.url + "file", target, QUICK)
    assert not list(target.parent.iterdir())


def test_size_is_known_without_head(site: Site):
    assert remote_size(site.url + "file", 1) == len(CONTENT)
    site.head = False
    assert remote_size(site.url + "file", 1) == len(CONTENT)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/file", "http://no-such-host.invalid/file", "https://127.0.0.1:1/file"]
)
def test_unreachable_server_is_one_error(url: str):
    with pytest.raises(BoneAgeError, match=r"cannot be reached: .+\nCheck the network"):
        remote_size(url, 5)


@pytest.mark.parametrize("elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1:1/file"])
def test_redirect_keeps_protocol(site: Site, target: Path, elsewhere: str):
    site.redirect = elsewhere
    with pytest.raises(BoneAgeError, match=r"302|unknown url type"):
        download_file(site.url + "file", target, QUICK)
    assert not target.exists()


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/a.zip", "/a.zip", "http:///a.zip", "http://h/a b.zip", "http://["],
)
def test_only_http_urls_are_opened(url: str):
    with pytest.raises(BoneAgeError, match="not an address"):
        check_url(url)


def test_full_disk_is_one_error(site: Site, target: Path):
    partial_path(target).symlink_to("/dev/full")
    with pytest.raises(BoneAgeError, match=r"The disk is full.*\nFree some room"):
        download_file(site.url + "file", target, QUICK)
