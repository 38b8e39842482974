"""Unpacking of uploads: images, zip archives of every kind, tables."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from boneage_pl.errors import BoneAgeError
from boneage_pl.webapp.batch_upload import UploadBatch, UploadedFile, unpack_uploads

FILE = io.BytesIO()
Image.linear_gradient("L").save(FILE, "PNG")
PNG = FILE.getvalue()


def dropped(
    folder: Path, files: dict[str, bytes], max_images: int = 10, max_bytes: int = 1 << 20
) -> UploadBatch:
    """Unpack files, each uploaded to its own folder."""
    listed = []
    for number, (name, content) in enumerate(files.items()):
        path = folder / f"upload{number}" / "x"
        path.parent.mkdir()
        path.write_bytes(content)
        listed.append(UploadedFile(path, name))
    target = folder / "batch"
    target.mkdir()
    return unpack_uploads(listed, target, max_images, max_bytes)


def zipped(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_zip_members_are_named_by_both(tmp_path: Path):
    archive = zipped({"a/1.png": PNG, "read me.txt": b"x", "__MACOSX/._1.png": b"x", "a/2.dcm": b"x"})
    batch = dropped(tmp_path, {"study.zip": archive, "hand.png": PNG, "12345": PNG})
    requests = [batch.display_name(request.path) for request in batch.requests("unknown")]
    assert requests == ["study.zip/a/1.png", "study.zip/a/2.dcm", "hand.png", "12345"]
    assert batch.errors == []


def test_table_gives_sexes_by_path_or_id(tmp_path: Path):
    table = b"id,sex\n1377,M\n1378,F\n9999,F\n"
    batch = dropped(
        tmp_path, {"1377.png": PNG, "s.zip": zipped({"x/1378.png": PNG}), "t.csv": table, "3.png": PNG}
    )
    requests = {batch.display_name(q.path): (q.male, q.error) for q in batch.requests(None)}
    assert requests["1377.png"] == (True, "")
    assert requests["s.zip/x/1378.png"] == (False, "")
    assert requests["3.png"] == (None, "")
    assert "has this name" in requests["9999"][1]


def test_unreadable_table_is_refused_alone(tmp_path: Path):
    batch = dropped(tmp_path, {"hand.png": PNG, "t.csv": b"a,b\n1,2\n"})
    assert len(list(batch.requests("unknown"))) == 1
    ((name, reason),) = batch.errors
    assert name == "t.csv"
    assert reason.startswith("no column is recognized as the id")


def test_table_naming_missing_file_is_refused(tmp_path: Path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    table = f"path,sex\n{secret},M\n../secret.png,M\nhand.png,F\n".encode()
    batch = dropped(tmp_path, {"t.csv": table, "hand.png": PNG})
    requests = list(batch.requests(None))
    assert [bool(request.error) for request in requests] == [True, True, False]
    assert str(tmp_path) not in str([q.path for q in requests[:2]])


def encrypted() -> bytes:
    content = bytearray(zipped({"1.png": PNG}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        where = content.index(signature) + at
        content[where] |= 1
    return bytes(content)


def many_names() -> bytes:
    """Return a zip archive that declares a directory of 100 MB."""
    content = bytearray(zipped({"1.png": PNG}))
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 12, 100 << 20)
    return bytes(content)


def damaged() -> bytes:
    content = bytearray(zipped({"1.png": PNG}))
    content[60:90] = bytes(30)
    return bytes(content)


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        (zipped({"1.png": bytes(2 << 20)}), "exceeds the 1 MB that remain for unpacking"),
        (zipped({"1.zip": zipped({"1.png": PNG})}), "a nested zip archive"),
        (zipped({"../1.png": PNG}), "has a path outside the folder"),
        (zipped({"/1.png": PNG}), "has a path outside the folder"),
        (zipped({}), "contains no radiograph"),
        (zipped({"notes.txt": b"x"}), "contains no radiograph"),
        (encrypted(), "is encrypted"),
        (many_names(), "its directory is too large"),
        (damaged(), "cannot be unpacked"),
        (b"no zip file", "not a readable zip archive"),
        (zipped({"1.png": PNG})[:-30], "not a readable zip archive"),
        (zipped({"a": PNG, "a/1.png": PNG}), "cannot be unpacked"),
    ],
)
def test_bad_zip_is_refused_alone(tmp_path: Path, archive: bytes, expected: str):
    batch = dropped(tmp_path, {"bad.zip": archive, "good.png": PNG})
    assert expected in str(batch.errors)
    assert [batch.display_name(request.path) for request in batch.requests("unknown")][-1] == "good.png"
    assert not (tmp_path / "1.png").exists()


def test_name_twice_in_zip_is_refused_without_server_path(tmp_path: Path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("1.png", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.png", PNG)
    batch = dropped(tmp_path, {"odd.zip": file.getvalue()})
    ((name, reason),) = batch.errors
    assert name == "odd.zip/1.png"
    assert str(tmp_path) not in reason
    assert [path.read_bytes() for path in batch.names] == [PNG]


def test_equal_or_odd_names_are_all_kept(tmp_path: Path):
    names = {
        "hand.png": PNG,
        "a/hand.png": PNG,
        "<b>é{{x}}.png": PNG,
        "x" * 300 + ".png": PNG,
        "../up.png": PNG,
        "1": PNG,
        "7": PNG,
    }
    batch = dropped(tmp_path, names)
    requests = list(batch.requests("unknown"))
    assert [batch.display_name(request.path) for request in requests] == list(names)
    assert len({request.path for request in requests}) == len(names)
    assert all(Path(request.path).read_bytes() == PNG for request in requests)
    assert all(Path(request.path).is_relative_to(batch.folder) for request in requests)


def test_too_many_or_no_images_are_refused(tmp_path: Path):
    with pytest.raises(BoneAgeError, match="at most 2 images"):
        dropped(tmp_path, {"s.zip": zipped({f"{n}.png": PNG for n in range(3)})}, max_images=2)
    (tmp_path / "more").mkdir()
    with pytest.raises(BoneAgeError, match="Drop radiographs"):
        dropped(tmp_path / "more", {})
