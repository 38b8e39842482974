import errno
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch.extract import damaged_path, extract
from tests.fetch.archive_server import noise, tree, zipped

GOOD = {"images/1.png": noise(1), "table.csv": b"id\n1\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def write(tmp_path: Path, content: bytes) -> Path:
    archive = tmp_path / "some.zip"
    archive.write_bytes(content)
    return archive


def test_files_are_extracted_and_hidden_ones_are_not(tmp_path: Path, root: Path):
    junk = {"__MACOSX/images/._1.png": b"x", ".DS_Store": b"x", "images/": b""}
    archive = write(tmp_path, zipped(GOOD | junk))
    for _ in range(2):  # again, over existing files
        assert extract(archive, root, 20) == 2
        assert tree(root) == GOOD
        (root / "table.csv").write_bytes(b"half")


def test_inner_archives_are_extracted_in_place(tmp_path: Path, root: Path):
    archive = write(tmp_path, zipped({"set/1.zip": zipped(GOOD), "set/t.csv": b"id\n2\n"}))
    assert extract(archive, root, 20) == 3
    assert tree(root) == {f"set/{name}": content for name, content in GOOD.items()} | {
        "set/t.csv": b"id\n2\n"
    }


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "/evil.png", "C:/evil.png", "..\\evil.png"]
)
def test_no_file_leaves_the_folder(tmp_path: Path, root: Path, name: str):
    extract(write(tmp_path, zipped(GOOD | {name: b"evil"})), root, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "some.zip"]


def test_links_are_not_made(tmp_path: Path, root: Path):
    content = zipped({"link.png": b"/etc/passwd"})
    start = content.index(b"PK\x01\x02") + 38  # attributes in the directory
    extract(
        write(tmp_path, content[:start] + (0o120777 << 16).to_bytes(4, "little") + content[start + 4 :]),
        root,
        20,
    )
    assert not any(path.is_symlink() for path in root.rglob("*"))


@pytest.mark.parametrize("inner", [False, True])
def test_zip_bomb_is_refused_before_writing(tmp_path: Path, root: Path, inner: bool):
    bomb = zipped(
        {"zeros.png": bytes(5_000_000)} | {"noise.bin": noise(1)}
        if inner
        else {"zeros.png": bytes(5_000_000)}
    )
    archive = write(tmp_path, zipped({"in.zip": bomb}) if inner else bomb)
    with pytest.raises(BoneAgeError, match=r"5\.0 MB, over unpack_limit=20"):
        extract(archive, root, 20)
    assert not list(root.rglob("*.png"))
    assert archive.exists()
    assert extract(archive, root, 2000) == 1 + inner


def flipped(content: bytes) -> bytes:
    middle = content.index(noise(1)[5000:5010])
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        b"this is no archive",
        b"",
        zipped(GOOD)[:-30],
        flipped(zipped(GOOD, zipfile.ZIP_STORED)),
        zipped({"in.zip": flipped(zipped(GOOD, zipfile.ZIP_STORED))}),
        zipped({"in.zip": b"this is no archive"}),
    ],
)
def test_damaged_archive_is_renamed(tmp_path: Path, root: Path, content: bytes):
    archive = write(tmp_path, content)
    with pytest.raises(BoneAgeError, match=r"some\.zip is damaged: .+\n.*some\.zip\.damaged"):
        extract(archive, root, 20)
    assert damaged_path(archive).read_bytes() == content
    assert not archive.exists()


def test_too_little_space_is_reported_before_writing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=19_000))
    archive = write(tmp_path, zipped(GOOD))
    with pytest.raises(BoneAgeError, match=r"20\.0 kB are needed, 19\.0 kB are free"):
        extract(archive, root, 20)
    assert not root.exists()
    assert archive.exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_system_error_renames_nothing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def failing(*_: object) -> int:
        raise OSError(number, "it passes")

    archive = write(tmp_path, zipped(GOOD))
    monkeypatch.setattr(zipfile.ZipExtFile, "read", failing)
    with pytest.raises(BoneAgeError, match="it passes"):
        extract(archive, root, 20)
    assert archive.exists()


def test_blocking_file_renames_nothing(tmp_path: Path, root: Path):
    archive = write(tmp_path, zipped(GOOD))
    root.mkdir()
    (root / "images").write_text("a file where a folder must be")
    with pytest.raises(BoneAgeError, match="cannot be extracted"):
        extract(archive, root, 20)
    assert archive.exists()


def test_encrypted_archive_is_not_called_damaged(tmp_path: Path, root: Path):
    content = bytearray(zipped(GOOD))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive = write(tmp_path, bytes(content))
    with pytest.raises(BoneAgeError, match=r"cannot be extracted.*encrypted"):
        extract(archive, root, 20)
    assert archive.exists()
