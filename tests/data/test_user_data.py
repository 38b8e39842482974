"""Images and small data sets as people bring them."""

import errno
import os
import re
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from boneage_pl.data.cache.build import build_cache
from boneage_pl.data.cache.store import ImageCache
from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.images import decode as images_module
from boneage_pl.data.images.bit_depth import dataset_bit_depths, effective_bits
from boneage_pl.data.images.decode import BadImageError, read_radiograph
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import read_table
from boneage_pl.errors import BoneAgeError
from tests.conftest import balanced_table, write_rsna

SIZE = ResizeSpec(107)
FOLDER = "boneage-training-dataset"


def picture(number: int) -> Image.Image:
    """Return noise of a seed, 40 × 40."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8))


# pictures


def png(image: Image.Image, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with further chunks after its header."""
    file = BytesIO()
    image.save(file, "PNG")
    content = file.getvalue()
    extra = b"".join(chunk(name, data) for name, data in chunks)
    return content[:33] + extra + content[33:]


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def jpeg(image: Image.Image, *segments: tuple[int, bytes]) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=95)
    content = file.getvalue()
    extra = b"".join(b"\xff" + bytes([m]) + (len(d) + 2).to_bytes(2, "big") + d for m, d in segments)
    return content[:2] + extra + content[2:]


TEXT = b"Comment\0\0" + zlib.compress(bytes(3 << 20))
PROFILE = b"x\0\0" + zlib.compress(bytes(2 << 20))


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"zTXt", TEXT)],
        [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3 << 20)))],
        [(b"iCCP", PROFILE)],
        [(b"eXIf", bytes(5))],
        [(b"tEXt", b"k\0" + bytes(100_000))] * 20,
        [(b"prVt", bytes(1 << 20)), (b"pHYs", b"1")],
    ],
    ids=lambda chunks: f"{chunks[0][0].decode()} × {len(chunks)}",
)
def test_chunks_without_pixels_are_ignored(tmp_path: Path, chunks: list[tuple[bytes, bytes]]):
    (tmp_path / "x.png").write_bytes(png(picture(1), *chunks))
    assert np.array_equal(np.asarray(read_radiograph(tmp_path / "x.png")), np.asarray(picture(1)))


def test_bad_checksum_matters_for_pixel_chunks_only(tmp_path: Path):
    content = bytearray(png(picture(1), (b"tEXt", b"key\0value")))
    content[content.index(b"value")] ^= 1
    (tmp_path / "x.png").write_bytes(content)
    assert np.array_equal(np.asarray(read_radiograph(tmp_path / "x.png")), np.asarray(picture(1)))


def test_orientation_survives_damaged_metadata(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    wide = picture(1).resize((60, 40))
    (tmp_path / "x.png").write_bytes(png(wide, (b"eXIf", exif.tobytes()[6:]), (b"zTXt", TEXT)))
    assert read_radiograph(tmp_path / "x.png").size == (40, 60)


@pytest.mark.parametrize(
    "segments", [[(0xE1, b"Exif\0\0" + bytes(3))], [(0xED, bytes(60_000))], [(0xFE, b"\xff" * 9)]]
)
def test_jpeg_segments_are_ignored(tmp_path: Path, segments: list[tuple[int, bytes]]):
    (tmp_path / "x.jpg").write_bytes(jpeg(picture(1), *segments))
    (tmp_path / "y.jpg").write_bytes(jpeg(picture(1)))
    read = [np.asarray(read_radiograph(tmp_path / name)) for name in ("x.jpg", "y.jpg")]
    assert np.array_equal(*read)


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


PALETTE = png(picture(1).quantize(16))
DAMAGED = {  # what is wrong with a picture: the picture
    "cut short in its pixels (IDAT)": png(picture(1))[:400],
    "damaged in its header (IHDR)": _flipped(png(picture(1)), 20),
    "damaged in its palette (PLTE)": _flipped(PALETTE, PALETTE.index(b"PLTE") + 5),
    "damaged in its pixels (IDAT)": _flipped(png(picture(1)), 60),
    "cut short": jpeg(picture(1))[:700],
    "fully transparent": png(Image.merge("LA", [picture(1), Image.new("L", (40, 40), 0)])),
    "all one gray value": png(Image.new("L", (40, 40), 7)),
    "more than 32 times as long as wide, no shape of a radiograph": png(Image.new("L", (1, 9000))),
    "16 bits a color that uses only 12 or fewer of them; store it as gray": b"",
}


def wide_color(most: int) -> bytes:
    """Return a PNG of 16-bit color, which Pillow does not write, with values from 0 to `most`."""
    values = np.random.default_rng(0).integers(0, most + 1, (20, 20, 3)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    header = (20).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


DAMAGED["16 bits a color that uses only 12 or fewer of them; store it as gray"] = wide_color(4095)


@pytest.mark.parametrize("kind", DAMAGED)
def test_corruption_is_described(tmp_path: Path, kind: str):
    (tmp_path / "x.png").write_bytes(DAMAGED[kind])
    with pytest.raises(BadImageError) as error:
        read_radiograph(tmp_path / "x.png")
    assert error.value.reason == kind


def test_16_bit_color_is_read(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(wide_color(65535))
    assert np.asarray(read_radiograph(tmp_path / "x.png")).max() > 200


@pytest.mark.parametrize("shape", [(1, 9000), (2, 60_000), (1, 60_000_000), (9000, 1)])
def test_very_narrow_image_is_cheap(tmp_path: Path, shape: tuple[int, int]):
    Image.new("1", shape).save(tmp_path / "x.png")
    with pytest.raises(BadImageError, match="more than 32 times as long as wide"):
        read_radiograph(tmp_path / "x.png")


# 16 bits


def wide_data(root: Path, most: dict[str, int]) -> Path:
    """Write a data set whose images are 16-bit PNGs; their largest values by id."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    for i, largest in most.items():
        values = np.linspace(0, largest, 50 * 40).reshape(50, 40)
        values = np.random.default_rng(int(i)).permutation(values.ravel()).reshape(50, 40)
        Image.fromarray(values.round().astype(np.uint16)).save(folder / f"{i}.png")
    rows = [(i, 30 + int(i), int(i) % 2 == 0) for i in most]
    pd.DataFrame(rows, columns=["id", "boneage", "male"]).to_csv(root / f"{FOLDER}.csv", index=False)
    return root


def prepared(root: Path) -> ImageCache:
    return build_cache(read_table(root), root, root / "prepared", SIZE)


@pytest.mark.parametrize(("most", "used"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_16_bit_images_use_bits_in_use(tmp_path: Path, most: int, used: int):
    store = prepared(wide_data(tmp_path, dict.fromkeys("1234", most)))
    assert store.images.bit_depths == [used]
    assert store.read(["1"]).max() > 240
    assert len(np.unique(store.read(["1"]))) > 200  # gray levels, not 16 of them


def test_signed_values_use_bits_in_use(tmp_path: Path):
    root = wide_data(tmp_path, dict.fromkeys("1234", 4095))
    plain = prepared(root).read(list("1234"))
    for path in (root / FOLDER).iterdir():
        Image.fromarray(np.asarray(Image.open(path)) + np.uint16(2**15)).save(path)
    assert np.array_equal(prepared(root).read(list("1234")), plain)


def test_bright_image_does_not_rescale_others(tmp_path: Path):
    most = {str(n): 4095 - 20 * n for n in range(1, 9)} | {"9": 2000}
    one = prepared(wide_data(tmp_path / "one", most)).read(list(most))
    bright = prepared(wide_data(tmp_path / "two", most | {"10": 65535}))
    assert np.array_equal(bright.read(list(most)), one)
    assert bright.read(["10"]).max() > 240
    assert one[-1].max() == pytest.approx(2000 / 16, abs=8)  # a darker one stays darker: it is of their kind


def test_bit_depth_is_estimated_for_data_set():
    assert dataset_bit_depths([0] * 5) == []
    assert dataset_bit_depths([12] * 50 + [11] * 20 + [10]) == [12]
    assert dataset_bit_depths([12] * 50 + [16] * 50) == [12, 16]
    assert dataset_bit_depths([12] * 200 + [16]) == [12]
    assert effective_bits(0, [12]) == 0
    assert effective_bits(9, [12]) == 12
    assert effective_bits(16, [12]) == 16
    assert effective_bits(12, [16]) == 12  # 16 gray levels would be left
    assert effective_bits(14, [16]) == 16


def test_8_bit_images_keep_values_beside_16_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_rsna(tmp_path / "data", balanced_table(1))
    before = prepared(tmp_path / "data").read(["5"])
    more = wide_data(tmp_path / "more", {"101": 4095, "102": 4000})
    for path in (more / FOLDER).iterdir():
        path.rename(tmp_path / "data" / FOLDER / path.name)
    table = pd.concat([pd.read_csv(root / f"{FOLDER}.csv") for root in (tmp_path / "data", more)])
    table.to_csv(tmp_path / "data" / f"{FOLDER}.csv", index=False)
    decoded: list[str] = []
    real = images_module.decode_image
    monkeypatch.setattr(
        images_module, "decode_image", lambda *given: (decoded.append(Path(given[1]).stem), real(*given))[1]
    )
    store = prepared(tmp_path / "data")
    assert sorted(decoded) == ["101", "102"]
    assert store.images.bit_depths == [12]
    assert np.array_equal(store.read(["5"]), before)


def test_changed_bit_depth_rebuilds_cache(tmp_path: Path):
    root = wide_data(tmp_path / "data", {"1": 1000, "2": 1010})
    assert prepared(root).images.bit_depths == [10]
    more = {"1": 1000, "2": 1010} | {str(n): 2047 for n in range(3, 9)} | {"9": 2047}
    for path in wide_data(tmp_path / "more", more).rglob("*.*"):
        target = root / path.relative_to(tmp_path / "more")
        if not target.exists() or target.suffix == ".csv":
            target.write_bytes(path.read_bytes())
    again, anew = prepared(root), prepared(tmp_path / "more")
    assert again.images.bit_depths == [11]
    assert np.array_equal(again.read(list(more)), anew.read(list(more)))


# what is remembered


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_transient_read_error_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    root = tmp_path / "data"
    write_rsna(root, balanced_table(1))
    real = images_module.open if hasattr(images_module, "open") else open

    def failing(path: object, *args: object, **options: object) -> object:
        if str(path).endswith("/5.png"):
            raise OSError(number, "it passes", str(path))
        return real(path, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(images_module, "open", failing, raising=False)
        store = prepared(root)
        assert store.images.errors == {"5": "unreadable (it passes)"}
        written = store.path.stat().st_ino
        assert prepared(root).path.stat().st_ino == written  # nothing is copied anew for it
    assert prepared(root).images.errors == {}


def test_prepare_detects_same_size_and_time_change(tmp_path: Path):
    root = tmp_path / "data"
    write_rsna(root, balanced_table(1))
    before = prepared(root).read(["4"])
    path = root / FOLDER / "4.png"
    found = path.stat()
    for seed in range(1, 10_000):  # until one compresses to the same size
        pixels = np.random.default_rng([4, seed]).integers(
            0, 256, np.asarray(Image.open(path)).shape, np.uint8
        )
        content = png(Image.fromarray(pixels))
        if len(content) == found.st_size:
            break
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert np.array_equal(prepared(root).read(["4"]), before)  # training trusts size and time, and says so
    table = read_table(root)
    store = build_cache(table, root, root / "prepared", SIZE, verify=True)
    assert not np.array_equal(store.read(["4"]), before)
    assert store.path.read_bytes() == build_cache(table, root, tmp_path / "anew", SIZE).path.read_bytes()


# one picture twice


def data_of(root: Path, **options: object) -> BoneAgeDataModule:
    data = BoneAgeDataModule(str(root), image_size=SIZE.size, **options)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("prepare", [True, False])
def test_copies_stay_on_one_side(tmp_path: Path, prepare: bool):
    table = balanced_table(6)
    copies = table.assign(id=table["id"] + 1000)
    write_rsna(tmp_path, pd.concat([table, copies]))
    for i in table["id"]:  # the same pixels in another file
        Image.open(tmp_path / FOLDER / f"{i}.png").save(
            tmp_path / FOLDER / f"{i + 1000}.png", compress_level=int(i) % 2
        )
    data = data_of(tmp_path, samples_per_group=8, cache=prepare)
    sides = data.split.assign(picture=data.split["id"].astype(int) % 1000).groupby("picture")["subset"]
    assert sides.nunique().max() == 1
    assert data.split["subset"].value_counts().to_dict() == {"train": 120, "validation": 40}


def test_copies_with_different_ages_are_reported(tmp_path: Path):
    write_rsna(tmp_path, balanced_table(4))
    (tmp_path / FOLDER / "80.png").write_bytes((tmp_path / FOLDER / "3.png").read_bytes())
    with pytest.raises(
        BoneAgeError, match=r"2 × image that another row has with another age or sex: .*3.png \(ids "
    ):
        data_of(tmp_path)
    data = data_of(tmp_path, on_invalid="skip", age_bins=5, samples_per_group=8)
    assert sorted(data.skipped["id"]) == ["3", "80"]
    assert not {"3", "80"} & set(data.split["id"])


# small data


def rows_of(ages: list[int], male: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"id": range(1, len(ages) + 1), "boneage": ages, "male": male})


RNG = np.random.default_rng(0)
SMALL = {
    "fifty": rows_of([int(a) for a in RNG.integers(24, 200, 50)], [n % 2 == 0 for n in range(50)]),
    "four": rows_of([30, 90, 40, 100], [True, True, False, False]),
    "one age": rows_of([60] * 40, [n % 2 == 0 for n in range(40)]),
}
SAID = {
    "four": "What works with this table: data.age_bins=1 data.samples_per_group=3",
    "one age": "All bone ages are 60 months, which is one age bin.\n"
    "What works with this table: data.age_bins=1 data.samples_per_group=20",
    "fifty": "What works with this table: data.age_bins=5 data.samples_per_group=5",
}


@pytest.mark.parametrize("name", SMALL)
def test_printed_options_work_together(tmp_path: Path, name: str):
    write_rsna(tmp_path, SMALL[name])
    with pytest.raises(BoneAgeError) as error:
        data_of(tmp_path)
    assert SAID[name] in str(error.value)
    words = re.findall(r"data\.(age_bins|samples_per_group)=(\d+)", SAID[name])
    options = {key: int(value) for key, value in words}
    assert set(data_of(tmp_path, **options).split["subset"]) == {"train", "validation"}
    with pytest.raises(BoneAgeError):  # it is the largest that works
        data_of(tmp_path, **options | {"age_bins": options["age_bins"] + 1})


def test_one_sex_table_trains_with_note(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = balanced_table(4)
    write_rsna(tmp_path, table[~table["male"]])
    with caplog.at_level("INFO"):
        data = data_of(tmp_path, samples_per_group=8)
    assert len(data.split) == 10 * 8
    assert (
        "no boys in the table: the groups are those of girls, and nothing is learned of boys" in caplog.text
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            rows_of([60, 90, 120, 150], [True, False, False, False]),
            "No number of age bins works: there is a single boy",
        ),
        (rows_of([60, 90], [True, True]).assign(boneage="old"), "no row can be used."),
    ],
)
def test_unhelpable_table_is_explained(tmp_path: Path, table: pd.DataFrame, said: str):
    write_rsna(tmp_path, table)
    with pytest.raises(BoneAgeError) as error:
        data_of(tmp_path, on_invalid="skip")
    assert said in str(error.value)
    assert "nan" not in str(error.value)


# size


def test_startup_work_is_linear_in_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Counted in cells of columns that are gone through, not in seconds."""
    counted = {}
    real = pd.Series.__iter__
    for per_group in (2, 8):
        root = tmp_path / str(per_group)
        write_rsna(root, balanced_table(per_group))
        data = BoneAgeDataModule(str(root), image_size=SIZE.size, samples_per_group=4 * per_group)
        data.prepare_data()
        cells = 0

        def counting(column: pd.Series) -> object:
            nonlocal cells
            cells += len(column)
            return real(column)

        with monkeypatch.context() as patch:
            patch.setattr(pd.Series, "__iter__", counting)
            data.setup()
        counted[per_group] = cells
    assert counted[8] < 5 * counted[2]
