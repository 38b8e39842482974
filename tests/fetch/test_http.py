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


def test_a_whole_file_comes_in_one_go_and_says_when_it_starts_and_ends(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
):
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets() == [(None, 200)]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("fetching http://127.0.0.1")
    assert lines[1].startswith("fetched file.zip, 300 kB")


def test_a_broken_connection_is_continued_where_it_broke(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
):
    site.break_after = [100_000, 50_000]
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets() == [(None, 200), ("bytes=100000-", 206), ("bytes=150000-", 206)]
    assert "broke off after 100 kB" in capsys.readouterr().err


def test_another_start_continues_too(site: Site, target: Path):
    begin(site, target, 120_000)
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == ("bytes=120000-", 206)


def test_tries_that_bring_something_do_not_count_against_the_limit(site: Site, target: Path):
    site.break_after = [50_000] * 5
    download_file(site.url + "file", target, RetryPolicy(timeout=1, retries=1, wait=0))
    assert_whole(target)


def test_tries_that_bring_nothing_are_limited(site: Site, target: Path):
    site.break_after = [100_000] + [0] * 9
    with pytest.raises(BoneAgeError, match="broke off after 100 kB: the connection closed"):
        download_file(site.url + "file", target, QUICK)
    assert len(site.gets()) == 1 + 2  # the first try that brought something, and two more
    assert partial_path(target).stat().st_size == 100_000


def test_a_server_that_never_continues_is_limited_too(site: Site, target: Path):
    site.ranges = False
    site.break_after = [100_000] * 9
    with pytest.raises(BoneAgeError, match="broke off"):
        download_file(site.url + "file", target, QUICK)
    assert len(site.gets()) == 1 + 2


def test_fewer_bytes_than_announced_are_never_taken_for_the_file(site: Site, target: Path):
    site.ranges = False
    site.declared["file"] = len(CONTENT) + 1
    with pytest.raises(BoneAgeError, match="the connection closed before"):
        download_file(site.url + "file", target, QUICK)
    assert not target.exists()


def test_a_stalled_connection_is_given_up_and_continued(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str]
):
    site.stall_after = 200_000  # the rest is shorter and comes
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert "no answer in time" in capsys.readouterr().err
    assert site.gets() == [(None, 200), ("bytes=200000-", 206)]


def test_a_server_without_ranges_starts_the_file_again(site: Site, target: Path):
    begin(site, target, 100_000)
    site.ranges = False
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == ("bytes=100000-", 200)


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("size", [300_000, 310_000, 60_000])
def test_a_file_that_changed_meanwhile_is_fetched_anew(
    site: Site, target: Path, heeds_if_range: bool, size: int
):
    begin(site, target, 100_000)
    changed = picture(2, size)
    site.put(file=changed)
    site.if_range = heeds_if_range
    download_file(site.url + "file", target, QUICK)
    assert_whole(target, changed)


def test_another_size_is_another_file_even_if_the_server_says_nothing_else(site: Site, target: Path):
    begin(site, target, 100_000)
    site.put(file=picture(2, 310_000))
    site.if_range = site.etag = False
    download_file(site.url + "file", target, QUICK)
    assert_whole(target, picture(2, 310_000))


def test_another_address_does_not_continue_this_part(site: Site, target: Path):
    begin(site, target, 100_000)
    site.put(other=picture(3, 300_000))
    site.if_range = site.etag = False  # a server that would send the rest of anything
    download_file(site.url + "other", target, QUICK)
    assert_whole(target, picture(3, 300_000))


def test_an_answer_that_starts_elsewhere_is_not_appended(site: Site, target: Path):
    begin(site, target, 100_000)
    site.shift = 7
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == (None, 200)


@pytest.mark.parametrize(("proof", "weak"), [(False, False), (True, True)])
def test_without_proof_that_the_file_is_the_same_it_starts_again(
    site: Site, target: Path, proof: bool, weak: bool
):
    site.etag, site.weak = proof, weak
    begin(site, target, 100_000)
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert site.gets()[-1] == (None, 200)


def test_a_part_that_has_every_byte_needs_no_more(site: Site, target: Path):
    begin(site, target, 100_000)
    partial_path(target).write_bytes(CONTENT)
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert len(site.gets()) == 1


@pytest.mark.parametrize(("extra", "statuses"), [(b"", [416]), (b"more", [416, 200])])
def test_no_such_range_means_whole_or_wrong(site: Site, target: Path, extra: bytes, statuses: list[int]):
    begin(site, target, 100_000)
    partial_path(target).write_bytes(CONTENT + extra)
    note = partial_path(target).with_name("file.zip.part.json")
    note.write_text(note.read_text().replace("300000", "null"))  # a server that did not say the size
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)
    assert [status for _, status in site.gets()[1:]] == statuses


def test_a_busy_server_is_asked_again(site: Site, target: Path):
    site.errors = [503, 429]
    download_file(site.url + "file", target, QUICK)
    assert_whole(target)


@pytest.mark.parametrize(("status", "words"), [(403, "403 Forbidden"), (410, "410 Gone")])
def test_a_refusal_is_final_and_says_where_to_look(site: Site, target: Path, status: int, words: str):
    site.errors = [status]
    with pytest.raises(BoneAgeError, match=f"{words}.*\n.*rsna.org|{words}"):
        download_file(site.url + "file", target, QUICK)
    assert len(site.gets()) == 1


def test_a_web_page_is_no_archive(site: Site, target: Path):
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(BoneAgeError, match="web page"):
        download_file(site.url + "file", target, QUICK)
    assert not list(target.parent.iterdir())


def test_the_size_is_known_beforehand_even_where_head_is_refused(site: Site):
    assert remote_size(site.url + "file", 1) == len(CONTENT)
    site.head = False
    assert remote_size(site.url + "file", 1) == len(CONTENT)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/file", "http://no-such-host.invalid/file", "https://127.0.0.1:1/file"]
)
def test_a_server_that_cannot_be_reached_is_one_error_at_once(url: str):
    with pytest.raises(BoneAgeError, match=r"cannot be reached: .+\nCheck the network"):
        remote_size(url, 5)


@pytest.mark.parametrize("elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1:1/file"])
def test_a_redirection_leads_to_no_other_protocol(site: Site, target: Path, elsewhere: str):
    site.redirect = elsewhere
    with pytest.raises(BoneAgeError, match=r"302|unknown url type"):
        download_file(site.url + "file", target, QUICK)
    assert not target.exists()


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/a.zip", "/a.zip", "http:///a.zip", "http://h/a b.zip", "http://["],
)
def test_only_http_addresses_are_opened(url: str):
    with pytest.raises(BoneAgeError, match="not an address"):
        check_url(url)


def test_a_full_disk_is_one_error(site: Site, target: Path):
    partial_path(target).symlink_to("/dev/full")
    with pytest.raises(BoneAgeError, match=r"The disk is full.*\nFree some room"):
        download_file(site.url + "file", target, QUICK)
