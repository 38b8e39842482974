"""DICOM files become the picture that a viewer shows, and nobody's name."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.decoders import JPEG2000LosslessDecoder

from boneage_pl.data.images.decode import BadImageError
from boneage_pl.data.images.dicom import DicomTags, decode_dicom, is_dicom
from boneage_pl.data.images.radiograph import load_radiograph
from tests.helpers.dicom_files import SYNTAXES, ramp, write_dicom


def gray(path: Path) -> NDArray[np.int64]:
    return np.asarray(decode_dicom(path.read_bytes(), str(path))[0]).astype(int)


def tags(path: Path) -> DicomTags:
    return decode_dicom(path.read_bytes(), str(path))[1]


def to_8(values: NDArray[np.uint16], most: int) -> NDArray[np.int64]:
    return np.rint(values / most * 255).astype(int)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_transfer_syntaxes_decode_alike(tmp_path: Path, syntax: str, photometric: str, bits: int):
    if syntax == "JPEG Extended" and bits == 16:
        pytest.skip("it has no more than 12 bits")
    values = ramp(bits)
    path = write_dicom(tmp_path / "a.dcm", values, syntax, bits, PhotometricInterpretation=photometric)
    wanted = to_8(values, 2**bits - 1)
    if photometric == "MONOCHROME1":
        wanted = 255 - wanted
    off = np.abs(gray(path) - wanted)
    assert off.max() <= (2 if syntax == "JPEG Extended" else 1)  # rounding one way or the other
    assert off.mean() < (0.6 if syntax == "JPEG Extended" else 0.01)
    assert tags(path).inverted == (photometric == "MONOCHROME1")


def test_window_maps_ends_to_black_and_white(tmp_path: Path):
    values = ramp()
    path = write_dicom(tmp_path / "a.dcm", values, WindowCenter=1000, WindowWidth=500)
    shown = gray(path)
    assert (shown[values < 749] == 0).all()
    assert (shown[values > 1250] == 255).all()
    middle = (values > 800) & (values < 1200)
    assert np.abs(shown[middle] - (values[middle] - 749.5) / 499 * 255).max() <= 1
    first = write_dicom(tmp_path / "b.dcm", values, WindowCenter=[1000, 50], WindowWidth=[500, 10])
    assert (gray(first) == shown).all()  # of several the first


def test_window_in_real_units_and_invalid_window(tmp_path: Path):
    values = ramp()
    plain = write_dicom(tmp_path / "a.dcm", values, WindowCenter=1000, WindowWidth=500)
    rescaled = write_dicom(
        tmp_path / "b.dcm",
        values,
        WindowCenter=1000 * 2 - 100,
        WindowWidth=999,
        RescaleSlope=2,
        RescaleIntercept=-100,
    )
    assert np.abs(gray(rescaled) - gray(plain)).max() <= 1
    broken = write_dicom(tmp_path / "c.dcm", values, WindowCenter=1000, WindowWidth=0)
    assert np.abs(gray(broken) - to_8(values, 4095)).max() <= 1
    assert "window cannot be used" in " ".join(load_radiograph(broken).notes)


@pytest.mark.parametrize("said", [12, 16])
def test_voi_lut_uses_its_own_bits(tmp_path: Path, said: int):
    """Some write 12 bits into a table that says 16."""
    item = Dataset()
    item.LUTDescriptor = [4096, 0, said]
    item.add_new("LUTData", "OW", np.arange(4095, -1, -1, dtype=np.uint16).tobytes())
    values = ramp()
    path = write_dicom(tmp_path / "a.dcm", values, VOILUTSequence=[item], WindowCenter=5, WindowWidth=5)
    assert np.abs(gray(path) - (255 - to_8(values, 4095))).max() <= 2


def test_unused_bits_do_not_count(tmp_path: Path):
    values = ramp()
    drawn = values | np.uint16(0b1010 << 12)  # an overlay of old, in the bits above
    plain = gray(write_dicom(tmp_path / "a.dcm", values))
    assert (gray(write_dicom(tmp_path / "b.dcm", drawn)) == plain).all()


def test_padding_is_black_and_sets_no_range(tmp_path: Path):
    values = (ramp(10) + 500).astype(np.uint16)
    values[:10] = 4095
    path = write_dicom(tmp_path / "a.dcm", values, PixelPaddingValue=4095)
    assert (gray(path)[:10] == 0).all()
    assert gray(path)[10:].max() == 255
    inverted = write_dicom(
        tmp_path / "b.dcm", values, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1"
    )
    assert (gray(inverted)[:10] == 0).all()


def test_colors_become_luminance(tmp_path: Path):
    colors = np.dstack([ramp(8), ramp(8).T[:64].repeat(2, 0)[:96, :64], ramp(8)[::-1]]).astype(np.uint8)
    path = write_dicom(tmp_path / "a.dcm", colors)
    assert (gray(path) == np.asarray(Image.fromarray(colors).convert("L"))).all()


def test_pydicom_test_files_are_read_or_refused():
    files = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))
    read, refused = [], {}
    for file in files:
        try:
            read.append(gray(file))
        except BadImageError as error:
            refused[file.name] = error.reason
    assert len(read) > 40
    assert "2 frames" in refused["SC_rgb_rle_2frame.dcm"]
    assert "without a picture" in refused["rtplan.dcm"]
    assert "damaged" in refused["MR_truncated.dcm"]
    same = [gray(f) for f in files if f.name.startswith("MR_small") and "truncated" not in f.name]
    assert len(same) == 8
    assert all((other == same[0]).all() for other in same)  # one picture in eight ways


@pytest.mark.parametrize(
    ("syntax", "marker", "at", "size"),
    [("JPEG lossless", b"\xff\xc3", 5, b"\xff" * 4), ("JPEG 2000", b"\xff\x51", 6, b"\x7f\xff\xff\xff" * 2)],
)
def test_huge_frame_claim_is_refused(tmp_path: Path, syntax: str, marker: bytes, at: int, size: bytes):
    """A decoder would make room for it."""
    content = bytearray(write_dicom(tmp_path / "a.dcm", ramp(), syntax).read_bytes())
    start = content.rindex(marker) + at
    content[start : start + len(size)] = size
    with pytest.raises(BadImageError, match="not as many as its tags say"):
        decode_dicom(bytes(content), "a.dcm")


def test_missing_preamble_is_accepted(tmp_path: Path):
    path = write_dicom(tmp_path / "a.dcm", ramp())
    bare = path.read_bytes()[132:]
    assert is_dicom(bare)
    assert (np.asarray(decode_dicom(bare, "bare")[0]) == gray(path)).all()


@pytest.mark.parametrize(
    ("given", "months"),
    [
        ({}, 120.02),
        ({"PatientBirthDate": None, "PatientAge": "007Y"}, 84),
        ({"StudyDate": "20090301", "PatientAge": "030M"}, 30),  # before birth
        ({"PatientBirthDate": "2010.03.01"}, 120.02),  # as ACR-NEMA wrote it
        ({"PatientBirthDate": "", "PatientAge": "010W"}, 2.3),
        ({"PatientBirthDate": None, "PatientAge": "061D"}, 2.0),
        ({"PatientBirthDate": None, "PatientAge": "7Y"}, None),
        ({"PatientBirthDate": None, "PatientAge": "000Y"}, None),
        ({"PatientBirthDate": None}, None),
    ],
)
def test_chronological_age_is_read(tmp_path: Path, given: dict, months: float | None):
    found = tags(write_dicom(tmp_path / "a.dcm", ramp(), **given)).age
    assert found == (None if months is None else pytest.approx(months, abs=0.01))


def test_sex_laterality_and_view_are_read(tmp_path: Path):
    left = tags(write_dicom(tmp_path / "a.dcm", ramp(), PatientSex="M", Laterality="L", ViewPosition="PA"))
    assert (left.male, left.laterality, left.view) == (True, "L", "PA")
    path = write_dicom(tmp_path / "b.dcm", ramp(), PatientSex="O", ImageLaterality="R", Laterality="L")
    right = tags(path)
    assert (right.male, right.laterality, right.view) == (None, "R", "")
    mirrored = load_radiograph(path)
    assert mirrored.mirrored
    assert (np.asarray(mirrored.image) == gray(path)[:, ::-1]).all()


def test_identifying_tags_are_dropped(tmp_path: Path):
    path = write_dicom(tmp_path / "a.dcm", ramp(), Laterality="R", ViewPosition="PA")
    radiograph = load_radiograph(path)
    for secret in ("Doe", "Jane", "SECRET", "2010", "2020", "4711", "House"):
        assert secret not in repr((radiograph.tags, radiograph.notes))


def test_missing_pydicom_names_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_dicom(tmp_path / "a.dcm", ramp())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(BadImageError, match=r"pip install 'boneage_pl\[dicom\]'"):
        load_radiograph(path)


def test_missing_decoder_names_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_dicom(tmp_path / "a.dcm", ramp(), "JPEG 2000")
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})  # as without the plugins
    with pytest.raises(BadImageError, match=r"JPEG 2000.*; to decode it, pip install 'boneage_pl\[dicom\]'"):
        load_radiograph(path)


def test_undecodable_syntax_is_named(tmp_path: Path):
    path = write_dicom(tmp_path / "a.dcm", ramp(), "JPEG 2000")
    other = path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.94")  # JPIP
    path.write_bytes(other)
    with pytest.raises(BadImageError, match="JPIP Referenced, which nothing here decodes"):
        load_radiograph(path)


@pytest.mark.parametrize(
    ("suffix", "given"), [("tif", {}), ("tif", {"compression": "tiff_lzw"}), ("png", {}), ("jpg", {})]
)
def test_files_and_memory_images_agree(tmp_path: Path, suffix: str, given: dict):
    values = to_8(ramp(), 4095).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path, **given)
    stored = np.asarray(Image.open(path))
    for picture in (path, str(path), stored, Image.open(path)):
        assert (np.asarray(load_radiograph(picture).image) == stored).all()


def test_16_bit_tiff_uses_bits_in_use_and_white_is_zero(tmp_path: Path):
    values = ramp(12)
    Image.fromarray(values).save(tmp_path / "a.tif")
    shown = np.asarray(load_radiograph(tmp_path / "a.tif").image).astype(int)
    assert (shown == values >> 4).all()
    Image.fromarray(values).save(tmp_path / "b.tif", tiffinfo={262: 0})
    assert (np.asarray(load_radiograph(tmp_path / "b.tif").image) == 255 - shown).all()
    assert (np.asarray(load_radiograph(values).image) == shown).all()


def test_non_single_image_is_refused(tmp_path: Path):
    page = Image.fromarray(ramp(8).astype(np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    Image.fromarray(np.ones((40, 40), np.float32)).save(tmp_path / "b.tif")
    for name, words in (("a.tif", "2 pages"), ("b.tif", "floating-point")):
        with pytest.raises(BadImageError, match=words):
            load_radiograph(tmp_path / name)
    with pytest.raises(BadImageError, match="must be uint8 or uint16"):
        load_radiograph(np.ones((40, 40)))
