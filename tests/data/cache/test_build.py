"""The image cache: its content, when it is rebuilt, and that damaged or outdated images are never read."""

import errno
import os
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

from boneage_pl.data.cache import store
from boneage_pl.data.cache.build import build_cache, open_dataset, relative_paths
from boneage_pl.data.cache.index import index_images
from boneage_pl.data.cache.store import ImageCache
from boneage_pl.data.images import decode
from boneage_pl.data.images.bit_depth import dataset_bit_depths, effective_bits
from boneage_pl.data.images.radiograph import load_radiograph, load_resized
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import read_table
from boneage_pl.data.tables.spec import DatasetSpec
from tests.conftest import balanced_table, write_rsna
from tests.helpers.dicom_files import ramp, write_dicom

SIZE = ResizeSpec(107)
FOLDER = "boneage-training-dataset"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_rsna(tmp_path / "data", balanced_table(4))
    return tmp_path / "data"


def cache_file(root: Path) -> Path:
    return root / "prepared" / f"{SIZE}-{FOLDER}.npy"


def cached(root: Path, **options: Any) -> ImageCache:
    return build_cache(read_table(root), root, cache_file(root), SIZE, **options)


def command(root: Path, *options: str, **settings: Any) -> subprocess.Popen[str]:
    arguments = [f"data.root={root}", f"data.image_size={SIZE}", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "boneage_pl.prepare", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def built(root: Path) -> list[str]:
    """Return the names of the files in the cache's folder, without locks."""
    return sorted(path.name for path in (root / "prepared").iterdir() if path.suffix != ".lock")


def test_cache_equals_torchvision_resize_and_crop(root: Path):
    cache, table = cached(root), read_table(root)
    assert set(cache.rows) == set(table["id"])
    published = v2.Compose([v2.Resize(SIZE.size), v2.CenterCrop(SIZE.size)])
    for i, path in zip(table["id"], table["path"], strict=True):
        assert np.array_equal(cache.read([i])[0], np.asarray(published(Image.open(path))))
    with pytest.raises(ValueError, match="read-only"):
        cache.pixels[0] = 0
    assert np.array_equal(np.load(cache.path, mmap_mode="r"), cache.pixels)  # numpy's own format


def test_uncached_images_are_the_same(root: Path):
    cache, table = cached(root), read_table(root)
    index = index_images(relative_paths(table, root), root, SIZE)
    assert index == cache.images
    paths = dict(zip(table["id"], table["path"], strict=True))
    assert np.array_equal(load_resized(paths, SIZE, index.bit_depths, ["7", "3"]), cache.read(["7", "3"]))


def test_second_build_writes_nothing(root: Path):
    written = cached(root).path.stat().st_ino
    assert cached(root).path.stat().st_ino == written
    assert cached(root, verify=True).path.stat().st_ino == written
    assert built(root) == [cache_file(root).name]


def change_pixels(root: Path) -> None:
    (root / FOLDER / "6.png").write_bytes((root / FOLDER / "7.png").read_bytes())


def change_table(root: Path) -> None:
    table = pd.read_csv(root / f"{FOLDER}.csv")
    table[table["id"] != 5].to_csv(root / f"{FOLDER}.csv", index=False)


def change_time(root: Path) -> None:
    os.utime(root / FOLDER / "8.png", ns=(1, 1))


def change_version(root: Path) -> None:
    path = cache_file(root)
    path.write_bytes(path.read_bytes().replace(f'[{store.VERSION}, "107"'.encode(), b'[0, "107"'))


def cut_short(root: Path) -> None:
    cache_file(root).write_bytes(cache_file(root).read_bytes()[:-1])


def empty(root: Path) -> None:
    cache_file(root).write_bytes(b"")


@pytest.mark.parametrize(
    "change", [change_pixels, change_table, change_time, change_version, cut_short, empty]
)
def test_change_rebuilds_cache(root: Path, change: Any):
    written = cached(root).path.stat().st_mtime_ns
    change(root)
    again = cached(root)
    assert again.path.stat().st_mtime_ns > written
    anew = build_cache(read_table(root), root, root.parent / "anew.npy", SIZE)
    assert again.path.read_bytes() == anew.path.read_bytes()


def test_prepare_rebuilds_damaged_pixels(root: Path):
    path = cached(root).path
    good = path.read_bytes()
    path.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    cached(root)
    assert path.read_bytes() != good  # training does not verify pixels
    cached(root, verify=True)
    assert path.read_bytes() == good


def test_open_cache_outlives_its_file(root: Path):
    cache = cached(root)
    before = cache.read(["6"]).copy()
    change_pixels(root)
    assert not np.array_equal(cached(root).read(["6"]), before)
    assert np.array_equal(cache.read(["6"]), before)


def test_tables_of_one_root_have_caches_of_their_own(root: Path):
    table = pd.read_csv(root / f"{FOLDER}.csv")
    (root / f"{FOLDER}.csv").unlink()
    (root / "other").mkdir()
    for name, rows in {"train": table[:40], "valid": table[40:], "other/train": table[::2]}.items():
        rows.to_csv(root / f"{name}.csv", index=False)
    names = ["train.csv", "valid.csv", "other/train.csv"]
    indices = [open_dataset(DatasetSpec(root, Path(name))) for name in names]
    paths = [index.build_cache(root / "prepared", SIZE, 1).path for index in indices]
    written = [path.stat().st_ino for path in paths]
    assert len(set(paths)) == 3
    again = [open_dataset(DatasetSpec(root, Path(n)), root / "prepared", SIZE).cache for n in names]
    assert [cache.path.stat().st_ino for cache in again if cache] == written


def test_killed_build_costs_a_rebuild(tmp_path: Path):
    root = tmp_path / "data"
    write_rsna(root, pd.DataFrame({"id": range(1, 161), "boneage": 50, "male": True}))
    pixels = np.random.default_rng(0).integers(0, 256, (600, 500), dtype=np.uint8)
    for i in range(1, 161):  # large enough to be interrupted
        Image.fromarray(pixels).save(root / FOLDER / f"{i}.png", compress_level=0)
    running = command(root)
    begun = cache_file(root).with_suffix(".npy.tmp")
    while running.poll() is None and not (begun.exists() and begun.stat().st_size > 20 * SIZE.size**2):
        time.sleep(0.002)
    running.kill()
    running.communicate()
    assert built(root) == [begun.name]
    again = command(root)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert built(root) == [cache_file(root).name]
    assert np.array_equal(cached(root).read(["160"])[0], SIZE.apply(Image.fromarray(pixels)))


def test_concurrent_builds_run_once(root: Path):
    running = [command(root) for _ in range(3)]
    texts = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum("caching" in err for _, err in texts) == 1
    assert all("80 images of 107 px" in out for out, _ in texts)


def test_unreadable_images_are_listed_and_others_cached(root: Path):
    (root / FOLDER / "3.png").write_bytes(b"")
    (root / FOLDER / "4.png").write_bytes((root / FOLDER / "5.png").read_bytes()[:1000])
    process = command(root)
    out, err = process.communicate()
    assert process.returncode == 2
    assert "78 images of 107 px" in out
    assert "2 unusable rows or images" in err
    assert f"1 × image that is an empty file: {root / FOLDER / '3.png'}" in err
    assert f"1 × image that is cut short: {root / FOLDER / '4.png'}" in err
    assert "Traceback" not in err


def test_missing_image_does_not_affect_others(root: Path):
    table = read_table(root)
    (root / FOLDER / "3.png").unlink()  # deleted after the table was read
    first = build_cache(table, root, cache_file(root), SIZE)
    written = first.path.stat().st_ino
    again = build_cache(table, root, cache_file(root), SIZE)
    assert again.images.errors == {"3": "unreadable (No such file or directory)"}
    assert again.path.stat().st_ino == written


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_transient_read_error_is_not_stored(root: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    def failing(path: object, *args: object, **options: object) -> object:
        if str(path).endswith("/5.png"):
            raise OSError(number, "it passes", str(path))
        return open(path, *args, **options)  # type: ignore[call-overload]  # noqa: PTH123

    with monkeypatch.context() as patch:
        patch.setattr(decode, "open", failing, raising=False)
        assert cached(root, workers=1).images.errors == {"5": "unreadable (it passes)"}
    assert cached(root).images.errors == {}


def test_full_disk_is_one_error(root: Path):
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    process = command(root, preexec_fn=small_disk)
    _, err = process.communicate()
    assert process.returncode == 2
    assert f"{cache_file(root)} cannot be written" in err
    assert "Traceback" not in err
    assert built(root) == []


def test_cache_dir_may_lie_elsewhere_but_is_no_file(root: Path, tmp_path: Path):
    assert command(root, f"data.cache_dir={tmp_path / 'elsewhere'}").wait() == 0
    assert len(list((tmp_path / "elsewhere").glob("107-*.npy"))) == 1
    assert not (root / "prepared").exists()
    (tmp_path / "file").touch()
    process = command(root, f"data.cache_dir={tmp_path / 'file'}")
    _, err = process.communicate()
    assert process.returncode == 2
    assert "Choose another folder with data.cache_dir=" in err


def test_phantom_is_generated_and_cached(tmp_path: Path):
    process = command(tmp_path / "drawn", "data=phantom", "data.phantom.count=20", "data.phantom.size=128")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "20 images of 107 px" in out


@pytest.mark.parametrize("option", ["data.image_size=abc", "data.cache_workers=-1"])
def test_invalid_data_numbers_are_refused(root: Path, option: str):
    process = command(root, option)
    _, err = process.communicate()
    assert process.returncode == 2
    assert f"{option}: it must be" in err


# images of more than 8 bits


def wide_data(root: Path, most: dict[str, int]) -> Path:
    """Write a data set of 16-bit PNGs with these largest values by id."""
    write_rsna(root, pd.DataFrame([(i, 30, True) for i in most], columns=["id", "boneage", "male"]))
    for i, largest in most.items():
        values = np.random.default_rng(int(i)).permutation(np.linspace(0, largest, 50 * 40)).reshape(50, 40)
        Image.fromarray(values.round().astype(np.uint16)).save(root / FOLDER / f"{i}.png")
    return root


def test_any_format_is_cached_as_it_is_predicted(tmp_path: Path):
    write_dicom(tmp_path / "1.dcm", ramp(), Laterality="R", WindowCenter=1000, WindowWidth=500)
    for i, most in (("2", 2000), ("3", 4095), ("4", 4000)):
        Image.fromarray((ramp() * (most / 4095)).astype(np.uint16)).save(tmp_path / f"{i}.tif")
    Image.fromarray(ramp(8).astype(np.uint8)).save(tmp_path / "5.webp", lossless=True)
    (tmp_path / "t.csv").write_text("id,boneage,sex\n" + "".join(f"{i},{30 * i},F\n" for i in range(1, 6)))
    cache = open_dataset(DatasetSpec(tmp_path)).build_cache(tmp_path / "prepared", SIZE, 1)
    assert cache.images.bit_depths == [12]
    for path in tmp_path.glob("?.*"):
        if path.suffix != ".csv":
            image = load_radiograph(path, cache.images.bit_depths).image
            assert np.array_equal(cache.read([path.stem])[0], SIZE.apply(image))


def test_image_that_an_extra_reads_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_dicom(tmp_path / "1.dcm", ramp())
    Image.fromarray(ramp(8).astype(np.uint8)).save(tmp_path / "2.png")
    (tmp_path / "t.csv").write_text("id,boneage,sex\n1,30,F\n2,60,M\n")

    def errors() -> dict[str, str]:
        return open_dataset(DatasetSpec(tmp_path)).build_cache(tmp_path / "c", SIZE, 1).images.errors

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pydicom", None)
        assert list(errors()) == ["1"]
    assert errors() == {}


@pytest.mark.parametrize("at", [0, 9, 60, 127, -1, -40])
def test_damaged_header_or_index_rebuilds_cache(root: Path, at: int):
    path = cached(root).path
    good = path.read_bytes()
    for byte in (0, 57, 255):
        content = bytearray(good)
        content[at] = byte
        path.write_bytes(content)
        assert np.array_equal(cached(root).read(["6"]), ImageCache(path, SIZE).read(["6"]))
    assert len(cached(root).rows) == 80


@pytest.mark.parametrize(("most", "used"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_16_bit_images_use_bits_in_use(tmp_path: Path, most: int, used: int):
    cache = cached(wide_data(tmp_path, dict.fromkeys("1234", most)))
    assert cache.images.bit_depths == [used]
    assert cache.read(["1"]).max() > 240
    assert len(np.unique(cache.read(["1"]))) > 200  # gray levels, not 16 of them


def test_bright_image_does_not_rescale_others(tmp_path: Path):
    most = {str(n): 4095 - 20 * n for n in range(1, 9)} | {"9": 2000}
    one = cached(wide_data(tmp_path / "one", most)).read(list(most))
    bright = cached(wide_data(tmp_path / "two", most | {"10": 65535}))
    assert np.array_equal(bright.read(list(most)), one)
    assert bright.read(["10"]).max() > 240
    assert one[-1].max() == pytest.approx(
        2000 / 16, abs=8
    )  # a darker image of the same bit depth stays darker


def test_bit_depth_is_estimated_for_data_set():
    assert dataset_bit_depths([0] * 5) == []
    assert dataset_bit_depths([12] * 50 + [11] * 20 + [10]) == [12]
    assert dataset_bit_depths([12] * 50 + [16] * 50) == [12, 16]
    assert dataset_bit_depths([12] * 200 + [16]) == [12]
    assert effective_bits(0, [12]) == 0
    assert effective_bits(9, [12]) == 12
    assert effective_bits(16, [12]) == 16
    assert effective_bits(12, [16]) == 12  # only 16 gray levels would remain
    assert effective_bits(14, [16]) == 16
