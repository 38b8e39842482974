"""The prepared images: what they are, and that nothing wrong is ever read from them."""

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.transforms import v2

from boneage_pl.data.cache import build, store
from boneage_pl.data.cache.build import build_cache
from boneage_pl.data.cache.store import ImageCache
from boneage_pl.data.images import decode
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import read_table
from boneage_pl.errors import BoneAgeError
from tests.conftest import balanced_table, write_rsna

SIZE = ResizeSpec(107)
FOLDER = "boneage-training-dataset"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_rsna(tmp_path / "data", balanced_table(4))
    return tmp_path / "data"


def prepare(root: Path, **options: Any) -> ImageCache:
    return build_cache(read_table(root), root, root / "prepared", SIZE, **options)


def made_anew(root: Path) -> Path:
    """Return the folder of a store made without interruption and without an older one."""
    build_cache(read_table(root), root, root.parent / "anew", SIZE)
    return root.parent / "anew"


def command(root: Path, *options: str, **settings: Any) -> subprocess.Popen[str]:
    arguments = [f"data.root={root}", f"data.image_size={SIZE}", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "boneage_pl.prepare", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the images that this process has decoded."""
    ids: list[str] = []
    real = decode.decode_image

    def recording(content: bytes, name: Path, bits: int) -> Image.Image:
        ids.append(Path(name).stem)
        return real(content, name, bits)

    monkeypatch.setattr(decode, "decode_image", recording)
    return ids


def test_cache_equals_torchvision_resize_and_crop(root: Path):
    prepared = prepare(root)
    table = read_table(root)
    assert set(prepared.rows) == set(table["id"])
    published = v2.Compose([v2.Resize(SIZE.size), v2.CenterCrop(SIZE.size)])
    for i, path in zip(table["id"], table["path"], strict=True):
        assert np.array_equal(prepared.read([i])[0], np.asarray(published(Image.open(path))))
    with pytest.raises(ValueError, match="read-only"):
        prepared.pixels[0] = 0
    assert np.array_equal(np.load(prepared.path, mmap_mode="r"), prepared.pixels)  # numpy's own format


def test_second_build_decodes_and_writes_nothing(root: Path, decoded: list[str]):
    first = prepare(root, workers=1)
    assert len(decoded) == 80
    written = first.path.stat().st_mtime_ns
    assert prepare(root, workers=1, verify=True).path.stat().st_mtime_ns == written
    assert len(decoded) == 80


def test_rebuild_processes_changed_files_only(root: Path, decoded: list[str]):
    prepare(root, workers=1)
    decoded.clear()
    images = root / FOLDER
    added = pd.DataFrame({"id": [500], "boneage": [100], "male": [True]})
    table = pd.read_csv(root / f"{FOLDER}.csv")
    pd.concat([table[table["id"] != 5], added]).to_csv(root / f"{FOLDER}.csv", index=False)
    (images / "5.png").unlink()
    (images / "500.png").write_bytes((images / "9.png").read_bytes())
    (images / "6.png").write_bytes((images / "7.png").read_bytes())
    (images / "8.png").touch()  # another time, the same content

    updated = prepare(root, workers=1)
    assert sorted(decoded) == ["500", "6"]
    assert "5" not in updated.rows
    assert np.array_equal(*updated.read(["6", "7"]))
    assert contents(root / "prepared") == contents(made_anew(root))


def test_rebuild_after_version_change(root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch):
    prepare(root, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "VERSION", store.VERSION + 1)
        with pytest.raises(BoneAgeError, match="holds no prepared images of 107 pixels"):
            ImageCache(root / "prepared", SIZE)
    text = (root / "prepared" / f"{SIZE}.json").read_text()
    (root / "prepared" / f"{SIZE}.json").write_text(
        text.replace(f'"version": {store.VERSION}', '"version": 0')
    )
    decoded.clear()
    prepare(root, workers=1)
    assert len(decoded) == 80


def test_damaged_cache_is_detected(root: Path):
    path = prepare(root).path
    good = contents(root / "prepared")
    damaged = bytearray(path.read_bytes())
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    prepare(root, verify=True)
    assert contents(root / "prepared") == good
    path.write_bytes(path.read_bytes()[:-1])  # too short is seen without reading it all
    prepare(root)
    assert contents(root / "prepared") == good


def test_resumed_build_is_byte_equal(tmp_path: Path):
    root = tmp_path / "data"
    table = pd.DataFrame({"id": range(1, 161), "boneage": 50, "male": True})
    write_rsna(root, table)
    for i in table["id"]:  # large enough to be caught half-way
        pixels = np.random.default_rng(i).integers(0, 256, (600, 500), dtype=np.uint8)
        Image.fromarray(pixels).save(root / FOLDER / f"{i}.png")
    running = command(root)
    journal = root / "prepared" / f".{SIZE}.v{store.VERSION}.part.jsonl"
    while running.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 20):
        time.sleep(0.002)
    running.kill()
    running.communicate()
    done = journal.read_bytes().count(b"\n")
    assert 20 <= done < 160
    assert contents(root / "prepared") == {}  # nothing that could be taken for a store
    with journal.open("ab") as file:
        file.write(b'{"id": "half a li')  # as a machine that loses power may leave it

    again = command(root)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert f"continuing: {done} of 160 images" in out
    assert contents(root / "prepared") == contents(made_anew(root))


def test_concurrent_builds_run_once(root: Path):
    running = [command(root) for _ in range(3)]
    texts = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum("preparing" in err for _, err in texts) == 1
    assert all("80 images of 107 px" in out for out, _ in texts)


def test_unreadable_images_are_listed_and_others_cached(root: Path):
    (root / FOLDER / "3.png").write_bytes(b"")
    (root / FOLDER / "4.png").write_bytes((root / FOLDER / "5.png").read_bytes()[:1000])
    process = command(root)
    out, err = process.communicate()
    assert process.returncode == 2
    assert "78 images of 107 px" in out
    assert "2 rows or images cannot be used" in err
    assert f"1 × image that is an empty file: {root / FOLDER / '3.png'}" in err
    assert f"1 × image that is cut short in its pixels (IDAT): {root / FOLDER / '4.png'}" in err
    assert "Traceback" not in err


def test_full_disk_is_one_error_and_keeps_work(root: Path):
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    process = command(root, preexec_fn=small_disk)
    _, err = process.communicate()
    assert process.returncode == 2
    assert f"cannot be written to {root / 'prepared'}" in err
    assert "Traceback" not in err
    process = command(root)
    out, _ = process.communicate()
    assert "continuing: 34 of 80 images" in out
    assert contents(root / "prepared") == contents(made_anew(root))


def test_cache_dir_may_lie_elsewhere_but_is_no_file(root: Path, tmp_path: Path):
    assert command(root, f"data.cache_dir={tmp_path / 'elsewhere'}").wait() == 0
    assert (tmp_path / "elsewhere" / f"{SIZE}.json").exists()
    assert not (root / "prepared").exists()
    (tmp_path / "file").touch()
    process = command(root, f"data.cache_dir={tmp_path / 'file'}")
    _, err = process.communicate()
    assert process.returncode == 2
    assert "Name another folder with data.cache_dir=" in err


def test_phantom_is_generated_and_cached(tmp_path: Path):
    small = ["data=phantom", "data.phantom.count=20", "data.phantom.size=128"]
    process = command(tmp_path / "drawn", *small)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "20 images of 107 px" in out


def test_partial_cache_of_older_version_is_discarded(
    root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    wanted = read_table(root)
    folder = root / "prepared"
    folder.mkdir()
    paths = {i: str(Path(p).relative_to(root)) for i, p in zip(wanted["id"], wanted["path"], strict=True)}
    with monkeypatch.context() as patch:
        patch.setattr(store, "VERSION", store.VERSION - 1)
        with store.PartialCache(folder, SIZE, []) as begun:
            for i, path in sorted(paths.items())[:10]:
                row = build._decode_row((i, path, root, SIZE, 0, 0, ""))
                begun.append(store.CacheEntry(i, row.source, bytes(SIZE.size**2), ""))
    decoded.clear()
    prepare(root, workers=1)
    assert len(decoded) == 80
    assert contents(folder) == contents(made_anew(root))


def test_unopenable_image_does_not_affect_others(root: Path):
    table = read_table(root)
    (root / FOLDER / "3.png").unlink()  # gone after the table was read
    first = build_cache(table, root, root / "prepared", SIZE)
    written = first.path.stat().st_ino
    again = build_cache(table, root, root / "prepared", SIZE)
    assert again.images.errors["3"] == "unreadable (No such file or directory)"
    assert again.path.stat().st_ino == written
    assert len(again.rows) == 79


@pytest.mark.parametrize("option", ["data.image_size=abc", "data.cache_workers=-1"])
def test_invalid_data_numbers_are_refused(root: Path, option: str):
    process = command(root, option)
    _, err = process.communicate()
    assert process.returncode == 2
    assert f"{option}: it must be a whole number" in err


def test_damaged_exif_is_unreadable_image(root: Path):
    image = Image.open(root / FOLDER / "3.png")
    image.save(
        root / FOLDER / "3.png", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\xff\xff\xff\xff"
    )
    store = prepare(root, workers=1)
    assert set(store.rows) | set(store.images.errors) == set(read_table(root)["id"])
