"""Uploads go when they are answered, and when nobody asks about them."""

import time
from pathlib import Path

import pytest

from boneage_pl.page.uploads import MAX_AGE_SECONDS, Uploads


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "x.png").write_bytes(b"x")
    return Uploads(tmp_path)


def test_a_file_that_two_wait_for_goes_after_the_second(uploads: Uploads):
    path = uploads.folder / "abc" / "x.png"
    uploads.add([str(path)])
    uploads.add([str(path)])
    with uploads.release([path]):
        assert uploads.contains(path)
    assert uploads.contains(path)
    with pytest.raises(ValueError, match="the answer failed"), uploads.release([path]):
        raise ValueError("the answer failed")
    assert list(uploads.folder.iterdir()) == []


def test_only_uploads_are_held(uploads: Uploads, tmp_path_factory: pytest.TempPathFactory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(b"x")
    link = uploads.folder / "link.png"
    link.symlink_to(outside)
    for path in (outside, link, uploads.folder / ".." / outside.parent.name / "secret.png", Path("a\0b")):
        assert not uploads.contains(path)


def test_what_nobody_asks_about_is_forgotten(uploads: Uploads):
    half = uploads.folder / "tmp123"  # of an upload that was too large
    half.write_bytes(b"half")
    now = time.time()
    uploads.delete_expired(now + MAX_AGE_SECONDS - 10)
    assert half.exists()
    uploads.delete_expired(now + MAX_AGE_SECONDS + 10)
    assert list(uploads.folder.iterdir()) == []


def test_what_is_unpacked_is_deleted(uploads: Uploads):
    with uploads.room() as room:
        (room / "x.png").write_bytes(b"x")
    assert [path.name for path in uploads.folder.iterdir()] == ["abc"]
