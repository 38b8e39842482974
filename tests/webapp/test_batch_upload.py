"""What people drop: images, zip files of every kind, tables."""

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


def dropped(folder: Path, files: dict[str, bytes], max_images: int = 10, room: int = 1 << 20) -> UploadBatch:
    """Lay out files as they arrive: each in a folder of its own."""
    listed = []
    for number, (name, content) in enumerate(files.items()):
        path = folder / f"upload{number}" / "x"
        path.parent.mkdir()
        path.write_bytes(content)
        listed.append(UploadedFile(path, name))
    laid = folder / "laid"
    laid.mkdir()
    return unpack_uploads(listed, laid, max_images, room)


def zipped(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_zip_members_are_named_by_both(tmp_path: Path):
    archive = zipped({"a/1.png": PNG, "read me.txt": b"x", "__MACOSX/._1.png": b"x", "a/2.dcm": b"x"})
    laid = dropped(tmp_path, {"study.zip": archive, "hand.png": PNG, "12345": PNG})
    requests = [laid.display_name(request.path) for request in laid.requests("unknown")]
    assert requests == ["study.zip/a/1.png", "study.zip/a/2.dcm", "hand.png", "12345"]
    assert laid.errors == []


def test_table_gives_sexes_by_path_or_id(tmp_path: Path):
    table = b"id,sex\n1377,M\n1378,F\n9999,F\n"
    laid = dropped(
        tmp_path, {"1377.png": PNG, "s.zip": zipped({"x/1378.png": PNG}), "t.csv": table, "3.png": PNG}
    )
    requests = {laid.display_name(q.path): (q.male, q.error) for q in laid.requests(None)}
    assert requests["1377.png"] == (True, "")
    assert requests["s.zip/x/1378.png"] == (False, "")
    assert requests["3.png"] == (None, "")
    assert "has this name" in requests["9999"][1]


def test_unreadable_table_is_refused_alone(tmp_path: Path):
    laid = dropped(tmp_path, {"hand.png": PNG, "t.csv": b"a,b\n1,2\n"})
    assert len(list(laid.requests("unknown"))) == 1
    ((name, words),) = laid.errors
    assert name == "t.csv"
    assert words.startswith("no column is recognized as the id")


def test_table_naming_missing_file_is_refused(tmp_path: Path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    table = f"path,sex\n{secret},M\n../secret.png,M\nhand.png,F\n".encode()
    laid = dropped(tmp_path, {"t.csv": table, "hand.png": PNG})
    requests = list(laid.requests(None))
    assert [bool(request.error) for request in requests] == [True, True, False]
    assert str(tmp_path) not in str([q.path for q in requests[:2]])


def encrypted() -> bytes:
    content = bytearray(zipped({"1.png": PNG}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        where = content.index(signature) + at
        content[where] |= 1
    return bytes(content)


def many_names() -> bytes:
    """An end that says that the list of contents has 100 MB."""
    content = bytearray(zipped({"1.png": PNG}))
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 12, 100 << 20)
    return bytes(content)


def damaged() -> bytes:
    content = bytearray(zipped({"1.png": PNG}))
    content[60:90] = bytes(30)
    return bytes(content)


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (zipped({"1.png": bytes(2 << 20)}), "would unpack to more than the 1 MB that are left"),
        (zipped({"1.zip": zipped({"1.png": PNG})}), "a zip file in a zip file"),
        (zipped({"../1.png": PNG}), "leads out of the folder"),
        (zipped({"/1.png": PNG}), "leads out of the folder"),
        (zipped({}), "no radiograph is in it"),
        (zipped({"notes.txt": b"x"}), "no radiograph is in it"),
        (encrypted(), "is encrypted"),
        (many_names(), "more files than can be radiographs"),
        (damaged(), "cannot be unpacked"),
        (b"no zip file", "no zip file that can be read"),
        (zipped({"1.png": PNG})[:-30], "no zip file that can be read"),
        (zipped({"a": PNG, "a/1.png": PNG}), "cannot be unpacked"),
    ],
)
def test_bad_zip_is_refused_alone(tmp_path: Path, archive: bytes, words: str):
    laid = dropped(tmp_path, {"bad.zip": archive, "good.png": PNG})
    assert words in str(laid.errors)
    assert [laid.display_name(request.path) for request in laid.requests("unknown")][-1] == "good.png"
    assert not (tmp_path / "1.png").exists()


def test_name_twice_in_zip_is_refused_without_server_path(tmp_path: Path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("1.png", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.png", PNG)
    laid = dropped(tmp_path, {"odd.zip": file.getvalue()})
    ((name, words),) = laid.errors
    assert name == "odd.zip/1.png"
    assert str(tmp_path) not in words
    assert [path.read_bytes() for path in laid.names] == [PNG]


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
    laid = dropped(tmp_path, names)
    requests = list(laid.requests("unknown"))
    assert [laid.display_name(request.path) for request in requests] == list(names)
    assert len({request.path for request in requests}) == len(names)
    assert all(Path(request.path).read_bytes() == PNG for request in requests)
    assert all(Path(request.path).is_relative_to(laid.folder) for request in requests)


def test_too_many_or_no_images_are_refused(tmp_path: Path):
    with pytest.raises(BoneAgeError, match="more than 2 images"):
        dropped(tmp_path, {"s.zip": zipped({f"{n}.png": PNG for n in range(3)})}, max_images=2)
    (tmp_path / "more").mkdir()
    with pytest.raises(BoneAgeError, match="Drop radiographs"):
        dropped(tmp_path / "more", {})
