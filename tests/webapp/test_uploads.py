import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from boneage_pl.webapp import server
from boneage_pl.webapp.uploads import MAX_AGE_SECONDS, Uploads


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "x.png").write_bytes(b"x")
    return Uploads(tmp_path)


def test_upload_is_deleted_after_use(uploads: Uploads):
    path = Path(uploads.claim(str(uploads.folder / "abc" / "x.png")))
    with suppress(ValueError), uploads.release([path]):
        assert uploads.contains(path)
        raise ValueError("the prediction failed")
    assert not path.parent.exists()


def test_stored_file_goes_when_nothing_arrives(uploads: Uploads):
    shared = uploads.folder / "abc" / "x.png"
    with uploads.arriving():
        with uploads.arriving():
            first = Path(uploads.claim(str(shared)))
        second = Path(uploads.claim(str(shared)))  # of a client with the same file
    assert not shared.exists()
    assert first != second
    assert uploads.contains(first)
    assert uploads.contains(second)


def test_nothing_else_is_deleted(uploads: Uploads, tmp_path_factory: pytest.TempPathFactory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(b"x")
    with uploads.release([outside]):
        pass
    assert outside.exists()


def test_only_uploads_are_tracked(uploads: Uploads, tmp_path_factory: pytest.TempPathFactory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(b"x")
    link = uploads.folder / "link.png"
    link.symlink_to(outside)
    for path in (outside, link, uploads.folder / ".." / outside.parent.name / "secret.png", Path("a\0b")):
        assert not uploads.contains(path)


def test_abandoned_upload_expires(uploads: Uploads):
    half = uploads.folder / "tmp123"  # of a rejected upload
    half.write_bytes(b"half")
    upload = Path(uploads.claim(str(uploads.folder / "abc" / "x.png")))
    now = time.time()
    uploads.delete_expired(now + MAX_AGE_SECONDS - 10)
    assert half.exists()
    assert upload.exists()
    uploads.delete_expired(now + MAX_AGE_SECONDS + 10)
    assert list(uploads.folder.iterdir()) == []


def test_server_outlives_a_failing_cleanup(monkeypatch: pytest.MonkeyPatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    calls = []

    def cleanup() -> None:
        calls.append(None)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        raise OSError("the disk is gone")

    monkeypatch.setattr(server, "_CLEANUP_SECONDS", 0)
    try:
        server._wait_for_signal(cleanup)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(calls) == 3


def test_swept_folder_is_made_again(uploads: Uploads):
    shutil.rmtree(uploads.folder)
    uploads.delete_expired()
    with uploads.unpack_folder() as folder:
        assert folder.is_dir()


def test_unpacked_files_are_deleted(uploads: Uploads):
    with uploads.unpack_folder() as folder:
        (folder / "x.png").write_bytes(b"x")
    assert [path.name for path in uploads.folder.iterdir()] == ["abc"]
