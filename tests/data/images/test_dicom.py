"""DICOM files are rendered as a viewer would, and identifying tags are dropped."""

import logging
import sys
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders import JPEG2000LosslessDecoder

from boneage_pl.data.images.checks import BadImageError
from boneage_pl.data.images.dicom import DicomTags, decode_dicom, is_dicom, non_image_class
from boneage_pl.data.images.radiograph import load_radiograph
from tests.helpers.dicom_files import SYNTAXES, ramp, write_dicom

VALUES = ramp()


def gray(path: Path) -> NDArray[np.int64]:
    return np.asarray(decode_dicom(path.read_bytes(), str(path))[0]).astype(int)


def tags(path: Path) -> DicomTags:
    return decode_dicom(path.read_bytes(), str(path))[1]


def to_8(values: NDArray[Any], most: float) -> NDArray[np.int64]:
    return np.rint(values / most * 255).astype(int)


WHOLE = to_8(VALUES, VALUES.max())


def shown(tmp_path: Path, values: NDArray[Any] = VALUES, **given: Any) -> NDArray[np.int64]:
    return gray(write_dicom(tmp_path / "a.dcm", values, **given))


def notes(tmp_path: Path, **given: Any) -> str:
    return "; ".join(tags(write_dicom(tmp_path / "a.dcm", VALUES, **given)).notes)


def reason(content: bytes) -> str:
    with pytest.raises(BadImageError) as error:
        decode_dicom(content, "a.dcm")
    return error.value.reason


# pixels


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_transfer_syntaxes_decode_alike(tmp_path: Path, syntax: str, photometric: str, bits: int):
    if syntax == "JPEG Extended" and bits == 16:
        pytest.skip("it has no more than 12 bits")
    values = ramp(bits)
    path = write_dicom(tmp_path / "a.dcm", values, syntax, bits, PhotometricInterpretation=photometric)
    expected = to_8(values, 2**bits - 1)
    if photometric == "MONOCHROME1":
        expected = 255 - expected
    off = np.abs(gray(path) - expected)
    assert off.max() <= (2 if syntax == "JPEG Extended" else 1)  # rounding
    assert off.mean() < (0.6 if syntax == "JPEG Extended" else 0.01)


def test_bits_above_high_bit_do_not_count(tmp_path: Path):
    overlay = VALUES | np.uint16(0b1010 << 12)
    assert (shown(tmp_path, overlay) == WHOLE).all()


@pytest.mark.parametrize("syntax", ["explicit", "big endian", "RLE", "JPEG-LS", "JPEG 2000"])
@pytest.mark.parametrize("signed", [False, True])
def test_left_justified_values_are_shifted(tmp_path: Path, syntax: str, signed: bool):
    values = VALUES.astype(np.int32) - (2048 if signed else 0)
    window = {"WindowCenter": 1000 - (2048 if signed else 0), "WindowWidth": 500}
    plain = shown(tmp_path, VALUES, WindowCenter=1000, WindowWidth=500)
    stored = ((values << 4) & 0xFFFF).astype(np.uint16)
    path = write_dicom(tmp_path / "b.dcm", stored, syntax, 16, PixelRepresentation=int(signed), **window)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored = 12
    dataset.save_as(path)
    assert np.abs(gray(path) - plain).max() <= 1


def test_high_bit_that_no_value_uses_is_ignored(tmp_path: Path):
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    assert (shown(tmp_path, HighBit=15, **window) == shown(tmp_path, **window)).all()


def test_colors_become_luminance(tmp_path: Path):
    colors = np.dstack([ramp(8), ramp(8).T[:64].repeat(2, 0)[:96, :64], ramp(8)[::-1]]).astype(np.uint8)
    luminance = np.asarray(Image.fromarray(colors).convert("L"))
    assert (shown(tmp_path, colors) == luminance).all()
    twelve = colors.astype(np.uint16) << 4
    assert np.abs(shown(tmp_path, twelve, bits=12) - luminance).max() <= 1


def test_pydicom_test_files_are_read_or_refused(monkeypatch: pytest.MonkeyPatch):
    logged = BufferingHandler(1000)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logged])
    files = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))
    files = [file for file in files if not non_image_class(file)]
    read, refused = [], {}
    for file in files:
        try:
            read.append(gray(file))
        except BadImageError as error:
            refused[file.name] = error.reason
    assert len(read) > 40
    assert "2 frames" in refused["SC_rgb_rle_2frame.dcm"]
    assert "cut short" in refused["MR_truncated.dcm"]
    same = [gray(f) for f in files if f.name.startswith("MR_small") and "truncated" not in f.name]
    assert len(same) == 8
    assert all((other == same[0]).all() for other in same)  # the same image in eight encodings
    assert not logged.buffer  # pydicom's messages may quote tags


# window, tables, padding, shutter


def test_window_maps_ends_to_black_and_white(tmp_path: Path):
    windowed = shown(tmp_path, WindowCenter=1000, WindowWidth=500)
    assert (windowed[VALUES < 749] == 0).all()
    assert (windowed[VALUES > 1250] == 255).all()
    middle = (VALUES > 800) & (VALUES < 1200)
    assert np.abs(windowed[middle] - (VALUES[middle] - 750) / 499 * 255).max() <= 1
    for center, width in (1000, 500), ([1000, 50], [500, 10]):  # the first of several
        assert (shown(tmp_path, WindowCenter=center, WindowWidth=width) == windowed).all()
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -100}
    real = shown(tmp_path, WindowCenter=1900, WindowWidth=999, **rescaled)
    assert np.abs(real - windowed).max() <= 1


@pytest.mark.parametrize(("text", "used"), [(b"1000,0", True), (b"middle", False)])
def test_window_that_is_no_decimal_string(tmp_path: Path, text: bytes, used: bool):
    content = write_dicom(tmp_path / "a.dcm", VALUES, WindowCenter="1000.0", WindowWidth=500).read_bytes()
    image, found = decode_dicom(content.replace(b"1000.0", text), "a.dcm")
    assert (np.asarray(image) == (gray(tmp_path / "a.dcm") if used else WHOLE)).all()
    assert ("not used" in str(found.notes)) != used


@pytest.mark.parametrize(("center", "width"), [(1000, 0), (-5000, 40), (20_000, 1), (1000, -5)])
def test_window_that_shows_nothing_is_noted_and_not_used(tmp_path: Path, center: Any, width: Any):
    given = {"WindowCenter": center, "WindowWidth": width}
    assert (shown(tmp_path, **given) == WHOLE).all()
    assert "its window is invalid: not used" in notes(tmp_path, **given)


@pytest.mark.parametrize(
    "name", ["WindowCenter", "RescaleSlope", "PixelPaddingValue", "NumberOfFrames", "ShutterShape"]
)
def test_empty_tag_is_as_absent(tmp_path: Path, name: str):
    given = {"WindowCenter": 1000, "WindowWidth": 500, name: ""}
    expected = shown(tmp_path, **({"WindowCenter": 1000, "WindowWidth": 500} | {name: None}))
    assert (shown(tmp_path, **given) == expected).all()
    assert "not used" not in notes(tmp_path, **given)


def table(data: NDArray[Any], bits: int, first: int = 0) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(data), first, bits]
    item.add_new("LUTData", "OW", data.tobytes())
    return [item]


INVERSE = np.arange(4095, -1, -1, dtype=np.uint16)


@pytest.mark.parametrize("bits", [12, 16])
def test_voi_lut_uses_its_own_bits(tmp_path: Path, bits: int):
    """Some files declare tables of 16 bits but use 12."""
    given = {"VOILUTSequence": table(INVERSE, bits), "WindowCenter": 5, "WindowWidth": 5}
    assert np.abs(shown(tmp_path, **given) - (255 - to_8(VALUES, 4095))).max() <= 1


def test_tables_of_8_bits_and_negative_start(tmp_path: Path):
    eight = table((INVERSE >> 4).astype(np.uint8), 8)
    assert np.abs(shown(tmp_path, VOILUTSequence=eight) - (255 - to_8(VALUES, 4095))).max() <= 1
    modality = table(np.arange(4096, dtype=np.uint16), 16, first=1000)
    windowed = shown(tmp_path, ModalityLUTSequence=modality, WindowCenter=1000, WindowWidth=500)
    expected = shown(tmp_path, WindowCenter=2000, WindowWidth=500)
    assert np.abs(windowed - expected).max() <= 1


def test_voi_lut_without_data_does_not_hide_window(tmp_path: Path):
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    expected = shown(tmp_path, **window)
    cut = table(INVERSE, 16)
    del cut[0].LUTData
    for empty in ([Dataset()], cut, []):
        assert (shown(tmp_path, VOILUTSequence=empty, **window) == expected).all()
        assert not notes(tmp_path, VOILUTSequence=empty, **window)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_presentation_lut_shape_comes_before_photometric(
    tmp_path: Path, photometric: str, shape: str | None, inverted: bool
):
    given = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
    assert (shown(tmp_path, **given) == (255 - WHOLE if inverted else WHOLE)).all()
    assert ("inverted" in notes(tmp_path, **given)) == inverted


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_sets_no_range(tmp_path: Path, photometric: str):
    values = (ramp(10) + 500).astype(np.uint16)
    values[:10] = 4095
    padded = shown(tmp_path, values, PixelPaddingValue=4095, PhotometricInterpretation=photometric)
    assert (padded[:10] == 0).all()
    assert padded[10:].max() == 255


SHUTTERS = {
    "RECTANGULAR": {
        "ShutterLeftVerticalEdge": 11,
        "ShutterRightVerticalEdge": 50,
        "ShutterUpperHorizontalEdge": 21,
        "ShutterLowerHorizontalEdge": 80,
    },
    "CIRCULAR": {"CenterOfCircularShutter": [48, 32], "RadiusOfCircularShutter": 25},
    "POLYGONAL": {"VerticesOfThePolygonalShutter": [21, 11, 21, 50, 80, 50, 80, 11]},
}


@pytest.mark.parametrize("kind", SHUTTERS)
def test_outside_of_display_shutter_is_black(tmp_path: Path, kind: str):
    y, x = np.mgrid[:96, :64]
    seen = (x >= 10) & (x < 50) & (y >= 20) & (y < 80)
    if kind == "CIRCULAR":
        seen = (x - 31) ** 2 + (y - 47) ** 2 <= 25**2
    values = np.where(seen, ramp(10), 4095).astype(np.uint16)
    image = shown(tmp_path, values, ShutterShape=kind, **SHUTTERS[kind])
    inner = seen & np.roll(seen, 1, 0) & np.roll(seen, -1, 0) & np.roll(seen, 1, 1) & np.roll(seen, -1, 1)
    outer = seen | np.roll(seen, 1, 0) | np.roll(seen, -1, 0) | np.roll(seen, 1, 1) | np.roll(seen, -1, 1)
    assert (image[~outer] == 0).all()
    assert np.corrcoef(image[inner], values[inner])[0, 1] > 0.999
    assert "black outside its display shutter" in notes(tmp_path, ShutterShape=kind, **SHUTTERS[kind])


def test_shutter_that_cannot_be_read_is_noted_and_not_used(tmp_path: Path):
    for given in (
        {"ShutterShape": "CIRCULAR"},
        {
            "ShutterShape": "CIRCULAR",
            **SHUTTERS["CIRCULAR"],
            "RadiusOfCircularShutter": 0,
            "CenterOfCircularShutter": [500, 500],
        },
    ):
        assert (shown(tmp_path, **given) == WHOLE).all()
        assert "display shutter is invalid" in notes(tmp_path, **given)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (192, 64)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (96, 128)),
        ({"PixelAspectRatio": [2, 1]}, (192, 64)),
        ({"PixelSpacing": [0.2, 0.2], "PixelAspectRatio": [2, 1]}, (96, 64)),
        ({"PixelSpacing": [0.143, 0.1432]}, (96, 64)),
        ({"PixelSpacing": [0, 0]}, (96, 64)),
    ],
)
def test_pixels_that_are_not_square_are_resampled(tmp_path: Path, given: dict, size: tuple[int, int]):
    assert shown(tmp_path, **given).shape == size
    assert ("not square" in notes(tmp_path, **given)) == (size != (96, 64))


# files that cannot be read


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_cut_short_file_is_named(tmp_path: Path, syntax: str):
    content = write_dicom(tmp_path / "a.dcm", VALUES, syntax).read_bytes()
    words = {"deflated": "damaged", "JPEG-LS": "cut short"}.get(syntax, "cut short")
    assert words in reason(content[: len(content) - 1000])


def test_pixels_in_another_transfer_syntax_are_decoded(tmp_path: Path):
    for stream in (
        imagecodecs.jpeg2k_encode(VALUES, codecformat="j2k", reversible=True, level=0),
        imagecodecs.jpegls_encode(VALUES),
    ):
        for syntax in ("JPEG lossless", "JPEG Extended", "RLE"):
            path = write_dicom(tmp_path / "a.dcm", VALUES, syntax)
            dataset = pydicom.dcmread(path)
            dataset.PixelData = encapsulate([stream])
            dataset.save_as(path)
            assert np.abs(gray(path) - WHOLE).max() <= 1


def test_private_transfer_syntax_is_named(tmp_path: Path):
    content = write_dicom(tmp_path / "a.dcm", VALUES, "JPEG 2000").read_bytes()
    private = content.replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.113619.5.2\0\0\0\0")
    assert "private transfer syntax 1.2.840.113619.5.2" in reason(private)
    jpip = content.replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.94").replace(b"\xff\x4f", b"\0\0")
    assert "JPIP Referenced, which is not supported" in reason(jpip)


@pytest.mark.parametrize(
    ("syntax", "marker", "at", "size"),
    [("JPEG lossless", b"\xff\xc3", 5, b"\xff" * 4), ("JPEG-LS", b"\xff\xf7", 5, b"\xff" * 4)],
)
def test_huge_frame_claim_is_refused(tmp_path: Path, syntax: str, marker: bytes, at: int, size: bytes):
    """A decoder would allocate that size."""
    content = bytearray(write_dicom(tmp_path / "a.dcm", VALUES, syntax).read_bytes())
    start = content.rindex(marker) + at
    content[start : start + len(size)] = size
    assert "differs from its tags" in reason(bytes(content))


def test_damaged_rle_runs_are_refused(tmp_path: Path):
    """The RLE decoder panics, which is not an `Exception`, if a run exceeds the image."""
    content = write_dicom(tmp_path / "a.dcm", VALUES, "RLE").read_bytes()
    start = content.index(b"\xfe\xff\x00\xe0")
    refused = 0
    for at in range(start + 4500, start + 4600):
        try:
            decode_dicom(content[:at] + b"\x7f" + content[at + 1 :], "a.dcm")
        except BadImageError as error:
            refused += "index out of bounds" in error.reason
    assert refused


def test_missing_preamble_is_accepted(tmp_path: Path):
    bare = write_dicom(tmp_path / "a.dcm", VALUES).read_bytes()[132:]
    assert is_dicom(bare)
    assert (np.asarray(decode_dicom(bare, "bare")[0]) == WHOLE).all()


def test_objects_without_image_are_told_by_class(tmp_path: Path):
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    assert non_image_class(folder / "rtplan.dcm") == "RT Plan Storage"
    assert non_image_class(folder / "dicomdirtests" / "DICOMDIR") == "Media Storage Directory Storage"
    assert non_image_class(write_dicom(tmp_path / "a.dcm", VALUES)) == ""
    (tmp_path / "b.dcm").write_bytes(b"")
    assert non_image_class(tmp_path / "b.dcm") == ""


def test_missing_library_names_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_dicom(tmp_path / "a.dcm", VALUES, "JPEG 2000")
    with monkeypatch.context() as patch:
        patch.setattr(JPEG2000LosslessDecoder, "_available", {})  # as if no plugin were installed
        patch.setitem(sys.modules, "imagecodecs", None)
        assert "JPEG 2000" in reason(path.read_bytes())
        assert "to decode it, pip install 'boneage_pl[dicom]'" in reason(path.read_bytes())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "pip install 'boneage_pl[dicom]'" in reason(path.read_bytes())


# tags


@pytest.mark.parametrize(
    ("given", "months"),
    [
        ({}, 120.02),
        ({"PatientBirthDate": None, "PatientAge": "007Y"}, 84),
        ({"StudyDate": "20090301", "PatientAge": "030M"}, 30),  # before birth
        ({"PatientBirthDate": "2010.03.01"}, 120.02),  # ACR-NEMA's format
        ({"PatientBirthDate": "2010-03-01"}, 120.02),
        ({"PatientBirthDate": "2010/03/01"}, 120.02),
        ({"StudyDate": "", "AcquisitionDate": "20200301"}, 120.02),
        ({"PatientBirthDate": "", "PatientAge": "010W"}, 2.3),
        ({"PatientBirthDate": None, "PatientAge": "061D"}, 2.0),
        ({"PatientBirthDate": None, "PatientAge": "7Y"}, 84),
        ({"PatientBirthDate": None, "PatientAge": "seven"}, None),
        ({"PatientBirthDate": None, "PatientAge": "000D"}, None),
        ({"PatientBirthDate": "19000101", "PatientAge": "010Y"}, 120),
        ({"PatientBirthDate": None}, None),
        ({"PatientBirthDate": "1 March 2010"}, None),
    ],
)
def test_chronological_age_is_read(tmp_path: Path, given: dict, months: float | None):
    found = tags(write_dicom(tmp_path / "a.dcm", VALUES, **given))
    assert found.age == (None if months is None else pytest.approx(months, abs=0.01))
    assert ("dates are invalid" in str(found.notes)) == (given.get("PatientBirthDate") == "1 March 2010")


@pytest.mark.parametrize(
    ("word", "male"),
    [("M", True), ("Male", True), ("F", False), ("female ", False), ("W", False), ("O", None), ("", None)],
)
def test_sex_is_read_in_the_words_that_people_write(tmp_path: Path, word: str, male: bool | None):
    found = tags(write_dicom(tmp_path / "a.dcm", VALUES, PatientSex=word))
    assert found.male is male
    assert ("its sex is neither F nor M: O" in found.notes) == (word == "O")


def test_right_hand_is_mirrored(tmp_path: Path):
    path = write_dicom(tmp_path / "a.dcm", VALUES, ImageLaterality="R", Laterality="L")
    assert load_radiograph(path).mirrored
    assert (np.asarray(load_radiograph(path).image) == gray(path)[:, ::-1]).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"Laterality": "B"}, "both hands"),
        ({"BodyPartExamined": "FOOT"}, "not a hand, by its tags: FOOT"),
        ({"BodyPartExamined": "LOW_EXM"}, "not a hand, by its tags: LOW EXM"),
        ({"BodyPartExamined": "FOREARM"}, "not a hand"),
        ({"BodyPartExamined": "HAND"}, ""),
        ({"BodyPartExamined": "UP_EXM"}, ""),
        ({"BodyPartExamined": "LEFT WRIST"}, ""),
        ({"Laterality": "R", "ViewPosition": "PA"}, "right hand, mirrored; view PA"),
    ],
)
def test_odd_tags_are_noted(tmp_path: Path, given: dict, words: str):
    assert words in notes(tmp_path, **given) if words else not notes(tmp_path, **given)


def test_identifying_tags_are_dropped(tmp_path: Path):
    path = write_dicom(tmp_path / "a.dcm", VALUES, Laterality="R", ViewPosition="PA")
    radiograph = load_radiograph(path)
    for secret in ("Doe", "Jane", "SECRET", "2010", "2020", "4711", "House"):
        assert secret not in repr((radiograph.tags, radiograph.notes))
