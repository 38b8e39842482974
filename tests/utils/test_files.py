import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from omegaconf import OmegaConf

from boneage_pl.cli.overrides import expand_home
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import (
    atomic_path,
    atomic_write,
    check_free_space,
    expand_path,
    format_bytes,
    translate_disk_errors,
    write_text,
)


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
def test_format_bytes(size: float, words: str):
    assert format_bytes(size) == words


def test_free_space_is_summed_by_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    needs = [(tmp_path / "not" / "made yet", 60_000), (tmp_path, 50_000)]
    check_free_space(needs[:1])
    with pytest.raises(BoneAgeError, match=r"110 kB are needed, 100 kB are free") as error:
        check_free_space(needs)
    assert str(tmp_path) in str(error.value)


def test_write_text_keeps_file_on_error(tmp_path: Path):
    write_text(tmp_path / "note", "old")
    (tmp_path / "note.tmp").mkdir()  # blocked
    with pytest.raises(BoneAgeError, match="cannot be written"):
        write_text(tmp_path / "note", "new")
    assert (tmp_path / "note").read_text() == "old"


def test_only_disk_errors_are_translated(tmp_path: Path):
    with pytest.raises(KeyError), translate_disk_errors(tmp_path):
        raise KeyError


def test_atomic_write_ignores_leftover_link(tmp_path: Path):
    """A leftover may be a hard link to a file that must not change."""
    other = tmp_path / "last.ckpt"
    other.write_text("the newest state")
    (tmp_path / "best.ckpt.tmp").hardlink_to(other)
    atomic_write(tmp_path / "best.ckpt", "another")
    assert [p.read_text() for p in (other, tmp_path / "best.ckpt")] == ["the newest state", "another"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_atomic_write_keeps_file_on_error(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    atomic_write(path, "old")

    def write_half() -> None:
        with atomic_path(path) as beside:
            beside.write_text("ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("flush", [True, False])
def test_atomic_write_flushes_before_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: bool):
    happened: list[str] = []
    real = Path.replace
    monkeypatch.setattr("os.fsync", lambda _: happened.append("flushed"))
    monkeypatch.setattr(Path, "replace", lambda *paths: (happened.append("moved"), real(*paths))[1])
    atomic_write(tmp_path / "file", b"content", flush=flush)
    assert happened == (["flushed", "moved"] if flush else ["moved"])


def test_folder_that_may_not_be_entered_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Simulated, since root may enter all folders."""
    monkeypatch.setattr(Path, "lstat", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(BoneAgeError, match=r"^/hidden/a\.ckpt: Permission denied"):
        expand_path("/hidden/a.ckpt")


def test_names_that_no_file_can_have_are_refused(tmp_path: Path):
    assert expand_path("a" * 255) == Path("a" * 255)
    for text in ("a" * 300, f"{tmp_path}/{'a' * 300}/b.csv", f"{tmp_path}/{'a/' * 3000}"):
        with pytest.raises(BoneAgeError, match="too long"):
            expand_path(text)
    with pytest.raises(BoneAgeError, match=r"^hydra\.run\.dir=a+….* too long"):
        expand_home(OmegaConf.create({"hydra": {"run": {"dir": "a" * 300}}}))
