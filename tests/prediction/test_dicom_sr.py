"""Content of structured reports, and which patient data they may have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement

from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.dicom_sr import write_dicom_sr
from boneage_pl.prediction.types import QUALITY_FLAGS, Prediction
from tests.helpers.dicom_files import write_dicom

TEXTS = ["AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"]
GROUPS = (0x0008, 0x0010, 0x0012, 0x0040)  # sequences that are filled, and their content


def predicted(path: Path, **changed: Any) -> Prediction:
    return Prediction(
        str(path), **{"male": False, "months": 124.3, "lower": 100.2, "upper": 148.4, **changed}
    )


def written(path: Path, *, identify: bool = False, **changed: Any) -> Comprehensive3DSR:
    return Comprehensive3DSR.from_dataset(
        dcmread(write_dicom_sr(predicted(path, **changed), "v3", 0.9, identify=identify))
    )


def group_of(report: Comprehensive3DSR) -> Any:
    return report.content.get_image_measurement_groups()[0]


@pytest.fixture
def hand(tmp_path: Path) -> Path:
    return write_dicom(tmp_path / "a.dcm", np.zeros((4, 4), np.uint8))


def fill(dataset: Dataset, depth: int = 0) -> None:
    """Fill every text and date element of the standard, also in sequences."""
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if tag < 0x00080006 or tag >> 16 in (0x0028, 0x7FE0) or not keyword:  # file format and pixels
            continue
        if depth and tag >> 16 not in GROUPS:
            continue
        if vr in TEXTS:
            dataset[tag] = DataElement(tag, vr, "SECRET", validation_mode=0)
        elif vr in ("DA", "DT", "TM"):
            dataset[tag] = DataElement(tag, vr, "17760704" if vr != "TM" else "112233", validation_mode=0)
        elif vr == "SQ" and depth == 0 and tag >> 16 in GROUPS:
            item = Dataset()
            fill(item, 1)
            setattr(dataset, keyword, [item])


def test_nothing_of_an_image_but_uids_and_sex_is_copied(hand: Path):
    image = dcmread(hand)
    kept = {
        name: image[name]
        for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    }
    fill(image)
    for name, element in kept.items():
        image[name] = element
    image.save_as(hand)
    assert dcmread(hand).ResponsiblePerson == "SECRET"
    path = write_dicom_sr(predicted(hand), "v3", 0.9, identify=False)
    for secret in (b"SECRET", b"17760704", b"112233"):
        assert secret in hand.read_bytes()
        assert secret not in path.read_bytes()
    report = dcmread(path)
    assert [report[name].value for name in ("PatientName", "PatientID", "PatientSex")] == ["", "", ""]


def test_patient_is_named_if_asked(hand: Path):
    report = written(hand, identify=True)
    assert (report.PatientName, report.PatientID, report.PatientBirthDate) == (
        "Doe^Jane",
        "SECRET-17",
        "20100301",
    )
    assert (report.StudyDate, report.AccessionNumber, report.PatientSex) == ("20200301", "A-4711", "F")


@pytest.mark.parametrize("identify", [False, True])
@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("", b"Doe^Jane"),
        (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        (["", "ISO 2022 IR 149"], b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
        ("Not Supplied", b"Doe^Jane"),
        ("ISO IR 192", "Müller^Jürgen".encode()),
        ("GB18030", "王^小东".encode("gb18030")),
    ],
)
def test_character_sets(hand: Path, charset: str | list[str], name: bytes, identify: bool):
    image = dcmread(hand)
    image[0x00080005] = DataElement(0x00080005, "CS", charset, validation_mode=0)
    image[0x00100010].value = "X" * len(name)
    image.save_as(hand)
    hand.write_bytes(hand.read_bytes().replace(b"X" * len(name), name))
    report = written(hand, identify=identify)
    assert str(report.PatientName) == (str(dcmread(hand).PatientName) if identify else "")
    assert report.SpecificCharacterSet == "ISO_IR 192"
    if identify and charset in ("ISO IR 192", "GB18030"):
        assert str(report.PatientName) in ("Müller^Jürgen", "王^小东")


def test_interval_difference_and_flags_are_coded(hand: Path):
    flags = [flag for flag in QUALITY_FLAGS if flag != "out_of_distribution"]
    group = group_of(written(hand, chronological_age=108.0, flags=flags))
    values = {
        measured.name.value: (measured.value, measured.unit.value) for measured in group.get_measurements()
    }
    assert values == {
        "37362-1": (124.3, "mo"),
        "lower": (100.2, "mo"),
        "upper": (148.4, "mo"),
        "age_difference": (16.3, "mo"),
        "age_difference_sd": (1.52, "1"),
    }
    coded = [(found.name.value, found.value.value) for found in group.get_qualitative_evaluations()]
    assert [flag for name, flag in coded if name == "quality_flag"] == flags


def test_no_hand_is_no_measurement(hand: Path):
    with pytest.raises(BoneAgeError, match="out_of_distribution"):
        written(hand, flags=["out_of_distribution"])
    assert not list(hand.parent.glob("*.sr.dcm"))


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_report_needs_uids(hand: Path, name: str):
    image = dcmread(hand)
    image[name] = DataElement(image[name].tag, "UI", "Doe^Jane", validation_mode=0)
    image.save_as(hand)
    with pytest.raises(BoneAgeError, match=f"lacks required attributes .*{name}"):
        written(hand)
