"""Files that are not radiographs are counted and skipped."""

import logging
import shutil
from pathlib import Path

import pydicom
import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.inputs import expand_inputs
from tests.helpers.dicom_files import ramp, write_dicom

OBJECTS = Path(pydicom.__file__).parent / "data" / "test_files"


def test_other_files_and_objects_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_dicom(tmp_path / "1.2.840.1", ramp())
    (tmp_path / "a.png").touch()  # opened later by the reader
    for name in ("b.heic", "c.heic", "d.pdf"):
        (tmp_path / name).touch()
    shutil.copy(OBJECTS / "rtplan.dcm", tmp_path / "plan.dcm")
    shutil.copy(OBJECTS / "dicomdirtests" / "DICOMDIR", tmp_path / "index")
    with caplog.at_level(logging.INFO):
        found = [request.image.name for request in expand_inputs([str(tmp_path)])]
    assert found == ["1.2.840.1", "a.png"]
    for count in ("2 .heic", "1 .pdf", "1 RT Plan Storage", "1 Media Storage Directory Storage"):
        assert count in caplog.text


def test_folder_without_radiographs_names_its_files(tmp_path: Path):
    (tmp_path / "a.zip").touch()
    with pytest.raises(BoneAgeError, match=r"no radiographs found; skipped: 1 \.zip"):
        expand_inputs([str(tmp_path)])


def test_pattern_walks_folders_and_takes_each_file_once(tmp_path: Path):
    for name in ("1/a.png", "1/deep/b.png", "2/c.png", "notes.docx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern, names in {"*": "abc", "**/*": "abc", "1*": "ab", "*/*.png": "ac", "[1]/deep": "b"}.items():
        found = [request.image.stem for request in expand_inputs([f"{tmp_path}/{pattern}"])]
        assert sorted(found) == list(names), pattern
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    for nothing in ("empty/*", "*.docx", "nowhere*"):
        with pytest.raises(BoneAgeError, match=r"no radiographs found|no match"):
            expand_inputs([f"{tmp_path}/{nothing}"])


def test_object_of_an_empty_class_may_be_a_radiograph(tmp_path: Path):
    path = write_dicom(tmp_path / "a.dcm", ramp())
    dataset = pydicom.dcmread(path)
    dataset.file_meta.MediaStorageSOPClassUID = ""
    dataset.save_as(path, enforce_file_format=False)
    assert [request.image for request in expand_inputs([str(tmp_path)])] == [path]
