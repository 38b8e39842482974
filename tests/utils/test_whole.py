"""Files that are whole or not at all."""

from pathlib import Path

import pytest

from boneage_pl.utils.files import atomic_path, atomic_write


def test_a_second_name_that_was_left_beside_is_not_written_through(tmp_path: Path):
    """Cut off there, it may be a hard link to a file that must stay as it is."""
    other = tmp_path / "last.ckpt"
    other.write_text("the newest state")
    (tmp_path / "best.ckpt.tmp").hardlink_to(other)
    atomic_write(tmp_path / "best.ckpt", "another")
    assert [p.read_text() for p in (other, tmp_path / "best.ckpt")] == ["the newest state", "another"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_what_fails_on_the_way_leaves_the_file_as_it_was(tmp_path: Path):
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
def test_the_content_is_flushed_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: bool
):
    happened: list[str] = []
    real = Path.replace
    monkeypatch.setattr("os.fsync", lambda _: happened.append("flushed"))
    monkeypatch.setattr(Path, "replace", lambda *paths: (happened.append("moved"), real(*paths))[1])
    atomic_write(tmp_path / "file", b"content", flush=flush)
    assert happened == (["flushed", "moved"] if flush else ["moved"])
