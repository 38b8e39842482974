import os
import shutil
import stat
import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch import extract as module
from boneage_pl.fetch.extract import extract, find_corruption
from tests.fetch.archive_server import picture, tree, zipped

GOOD = {"images/1.png": picture(1), "table.csv": b"id\n1\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def write(tmp_path: Path, content: bytes) -> Path:
    archive = tmp_path / "some.zip"
    archive.write_bytes(content)
    return archive


def link_entry(name: str) -> bytes:
    """Return an archive that holds a symbolic link."""
    content = zipped({name: b"/etc/passwd"} | GOOD)
    mode = (stat.S_IFLNK | 0o777) << 16
    start = content.index(b"PK\x01\x02")  # the link's record in the directory; its attributes are at 38
    return content[: start + 38] + mode.to_bytes(4, "little") + content[start + 42 :]


def test_files_extract_and_hidden_ones_do_not(tmp_path: Path, root: Path):
    junk = {"__MACOSX/images/._1.png": b"x", ".DS_Store": b"x", "images/.2.png.part": b"x", "images/": b""}
    assert extract(write(tmp_path, zipped(GOOD | junk)), root, 20) == 2
    assert tree(root) == GOOD


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.png", "leads out"),
        ("images/../../evil.png", "leads out"),
        ("/tmp/evil.png", "absolute"),
        ("C:/evil.png", "absolute"),
        ("c:evil.png", "absolute"),
        ("images\\..\\..\\evil.png", "backslash"),
        ("__MACOSX/../../evil.png", "leads out"),
    ],
)
def test_path_traversal_refuses_archive(tmp_path: Path, root: Path, name: str, reason: str):
    archive = write(tmp_path, zipped(GOOD | {name: b"evil"}))
    before = tree(tmp_path)
    with pytest.raises(BoneAgeError, match=f"some.zip is refused.*evil.png.*{reason}"):
        extract(archive, root, 20)
    assert tree(tmp_path) == before


def test_null_byte_hides_nothing(tmp_path: Path, root: Path):
    content = zipped({"a.pngX/../../evil": b"evil"}).replace(b"a.pngX", b"a.png\0")
    with pytest.raises(BoneAgeError, match="null byte"):
        extract(write(tmp_path, content), root, 20)


def test_link_refuses_archive(tmp_path: Path, root: Path):
    with pytest.raises(BoneAgeError, match=r"refused.*'passwd\.png' is a link"):
        extract(write(tmp_path, link_entry("passwd.png")), root, 20)
    assert not root.exists()


def test_malicious_inner_archive_is_refused_by_name(tmp_path: Path, root: Path):
    inner = zipped({"../../../evil.png": b"evil", "fine.png": b"fine"})
    with pytest.raises(BoneAgeError, match=r"sub/in.zip in some.zip is refused.*evil.png"):
        extract(write(tmp_path, zipped({"sub/in.zip": inner})), root, 20)
    assert tree(root) == {}


def test_inner_archives_extract_in_place_and_are_removed(tmp_path: Path, root: Path):
    archive = write(tmp_path, zipped({"set/1.zip": zipped(GOOD), "set/t.csv": b"id\n2\n"}))
    assert extract(archive, root, 20) == 3
    expected = {f"set/{name}": content for name, content in GOOD.items()} | {"set/t.csv": b"id\n2\n"}
    assert tree(root) == expected


def test_existing_files_are_kept_and_wrong_ones_replaced(tmp_path: Path, root: Path):
    entries = {f"{i}.png": picture(i) for i in range(4)}
    archive = write(tmp_path, zipped(entries))
    extract(archive, root, 20)
    for i in range(4):
        os.utime(root / f"{i}.png", (1, 1))
    (root / "1.png").write_bytes(picture(9))  # as long, but not the same
    (root / "2.png").write_bytes(b"short")
    (root / "3.png").unlink()
    (root / "3.png.tmp").write_bytes(b"half of it, left by a process that was killed")
    extract(archive, root, 20)
    assert tree(root) == entries
    assert [(root / f"{i}.png").stat().st_mtime == 1 for i in range(4)] == [True, False, False, False]


def test_zip_bomb_is_refused_before_writing(tmp_path: Path, root: Path):
    archive = write(tmp_path, zipped({"zeros.png": bytes(5_000_000)}))
    with pytest.raises(BoneAgeError, match=r"some.zip is refused: it would unpack to 5\.0 MB"):
        extract(archive, root, 20)
    assert not root.exists()
    extract(archive, root, 2000)
    assert (root / "zeros.png").stat().st_size == 5_000_000


def test_nested_zip_bomb_is_refused(tmp_path: Path, root: Path):
    stage = zipped({"zeros.png": bytes(400_000)} | {f"{i}.png": picture(i) for i in range(2)})
    archive = write(tmp_path, zipped({f"{i}.zip": stage for i in range(20)}))
    assert len(stage) * 20 > 400_000  # no stage is beyond the limit by itself
    with pytest.raises(BoneAgeError, match=r"in some\.zip is refused: it would unpack to"):
        extract(archive, root, 5)


def test_no_more_than_declared_is_written(tmp_path: Path, root: Path):
    content = bytearray(zipped({"zeros.png": bytes(5_000_000)}))
    for header, field in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(header) + field
        content[start : start + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(BoneAgeError, match="damaged"):
        extract(write(tmp_path, bytes(content)), root, 20)
    assert tree(root) == {}


def flipped(content: bytes) -> bytes:
    middle = content.index(picture(1)[5000:5010])
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        b"this is no archive",
        b"",
        zipped(GOOD)[:-30],
        zipped(GOOD)[:9000],
        flipped(zipped(GOOD, zipfile.ZIP_STORED)),
        zipped({"in.zip": flipped(zipped(GOOD, zipfile.ZIP_STORED))}),
        zipped({"in.zip": b"this is no archive"}),
    ],
)
def test_damaged_archive_is_moved_aside(tmp_path: Path, root: Path, content: bytes):
    archive = write(tmp_path, content)
    with pytest.raises(BoneAgeError, match=r"some\.zip is damaged: .+\n.*some\.zip\.damaged") as error:
        extract(archive, root, 20)
    assert "Run the same command again" in str(error.value)
    assert find_corruption(archive).read_bytes() == content
    assert not archive.exists()
    assert "images/1.png" not in tree(root)
    assert not [name for name in tree(root) if ".tmp" in name or ".zip" in name]


def test_damaged_inner_archive_is_named(tmp_path: Path, root: Path):
    with pytest.raises(BoneAgeError, match=r"a/in.zip in some.zip: File is not a zip file"):
        extract(write(tmp_path, zipped({"a/in.zip": b"none"})), root, 20)


def test_too_little_space_is_reported_before_writing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=19_000))
    archive = write(tmp_path, zipped(GOOD))
    with pytest.raises(BoneAgeError, match=r"(?s)20\.0 kB are needed, 19\.0 kB are free"):
        extract(archive, root, 20)
    assert not root.exists()
    assert archive.exists()


def test_full_disk_is_no_damage(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch):
    archive = write(tmp_path, zipped(GOOD))
    monkeypatch.setattr(module, "atomic_path", lambda *_, **__: nullcontext(Path("/dev/full")))
    with pytest.raises(BoneAgeError, match="The disk is full"):
        extract(archive, root, 20)
    assert archive.exists()
    assert not list((root / "images").iterdir())


def test_blocking_folder_is_no_damage(tmp_path: Path, root: Path):
    archive = write(tmp_path, zipped(GOOD))
    root.mkdir()
    (root / "images").write_text("a file where a folder must be")
    with pytest.raises(BoneAgeError, match="cannot be written"):
        extract(archive, root, 20)
    assert archive.exists()


def test_encrypted_entry_is_refused(tmp_path: Path, root: Path):
    content = bytearray(zipped(GOOD))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BoneAgeError, match="encrypted"):
        extract(write(tmp_path, bytes(content)), root, 20)
