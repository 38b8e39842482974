import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import check_free_space, format_bytes, translate_disk_errors, write_text


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (300_000, "300 kB"),
        (9.6e9, "9.6 GB"),
        (999_700, "1.0 MB"),
    ],
)
def test_sizes_read_as_a_person_says_them(size: float, words: str):
    assert format_bytes(size) == words


def test_folders_on_one_disk_share_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    needs = [(tmp_path / "not" / "made yet", 60_000), (tmp_path, 50_000)]
    check_free_space(needs[:1])
    with pytest.raises(BoneAgeError, match=r"110 kB are needed, 100 kB are free") as error:
        check_free_space(needs)
    assert str(tmp_path) in str(error.value)


def test_a_text_that_cannot_be_replaced_is_left_as_it_was(tmp_path: Path):
    write_text(tmp_path / "note", "old")
    (tmp_path / "note.tmp").mkdir()  # in the way
    with pytest.raises(BoneAgeError, match="cannot be written"):
        write_text(tmp_path / "note", "new")
    assert (tmp_path / "note").read_text() == "old"


def test_only_what_the_disk_says_is_turned_into_an_error(tmp_path: Path):
    with pytest.raises(KeyError), translate_disk_errors(tmp_path):
        raise KeyError
