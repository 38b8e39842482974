"""DICOM structured reports of predictions."""

import logging
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from boneage_pl import __version__
from boneage_pl.data.images.decode import read_file
from boneage_pl.data.images.radiograph import stem_of
from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.types import Prediction
from boneage_pl.utils.files import atomic_path
from boneage_pl.utils.optional import import_optional

DEVICE_NAME = "boneage_pl"
# What says who it is, when and where: a report may leave the first empty (PS3.3 C.7.1.1 and C.7.2.1, type 2),
# and needs none of the others, which highdicom would copy
_EMPTY_TAGS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_IDENTIFYING_TAGS = (
    "StudyDescription",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "DeviceSerialNumber",
    "PatientAge",
    "PatientComments",
    "OtherPatientIDs",
    "OtherPatientNames",
)


def needs_highdicom() -> None:
    """Import highdicom, see `import_optional`, and let it speak of errors alone."""
    import_optional("highdicom", "dicom_sr=true", "dicom")
    logging.getLogger("highdicom").setLevel(logging.ERROR)


def write_dicom_sr(answer: Prediction, model: str, level: float, *, identify: bool) -> Path:
    """Write a Comprehensive 3D SR beside an answer's DICOM file, as `<name>_F.sr.dcm`, and return its path.

    The bone age is LOINC 37362-1 in UCUM `mo`, with the algorithm's name and version (TID 4019); the
    verification flag is UNVERIFIED.

    Args:
        answer: with months.
        model: what the algorithm was, such as the experiment's name.
        level: of the answer's interval.
        identify: whether patient and study are named as in the image, which a PACS needs to file it by; else
            the report points to the image by its UIDs alone.

    Raises:
        BoneAgeError: highdicom is not installed, the file is no DICOM that has what a report needs, or a
            report is there already.
    """
    needs_highdicom()
    source = Path(answer.path)
    path = source.with_name(f"{stem_of(source)}_{answer.sex}.sr.dcm")
    if path.exists():
        raise BoneAgeError(f"dicom_sr=true: {path} is there already, and nothing is written over.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = _report(_image(source, identify=identify), answer, model, level)
        except BoneAgeError:
            raise
        except Exception as error:  # highdicom and pydicom raise whatever comes up
            raise BoneAgeError(
                f"dicom_sr=true: {source} lacks what a report needs ({' '.join(str(error).split())[:120]})."
            ) from error
        try:
            with atomic_path(path) as beside:
                report.save_as(beside)
        except OSError as error:
            raise BoneAgeError(f"dicom_sr=true: {path} cannot be written: {error.strerror}.") from error
    return path


def _image(path: Path, *, identify: bool) -> Any:
    """Return an image's tags; identifying ones only if `identify`."""
    from pydicom import dcmread

    dataset = dcmread(BytesIO(read_file(path)), force=True, stop_before_pixels=True)
    if "SOPInstanceUID" not in dataset:
        raise BoneAgeError(f"dicom_sr=true: {path} is no DICOM file, and a report points to one.")
    for name in _EMPTY_TAGS:
        if not identify or name not in dataset:
            setattr(dataset, name, "")
    for name in () if identify else _IDENTIFYING_TAGS:
        dataset.pop(name, None)
    return dataset


def _report(image: Any, answer: Prediction, model: str, level: float) -> Any:
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    uid = hd.UID()
    algorithm = sr.AlgorithmIdentification(
        name=f"{DEVICE_NAME} {model}",
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
        parameters=_parameters(answer, level),
    )
    source = sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
    age = sr.Measurement(
        name=sr.CodedConcept("37362-1", "LN", "XR Bone age"),
        value=round(float(answer.months or 0), 2),
        unit=codes.UCUM.Month,
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier="Bone age"),
        algorithm_id=algorithm,
        measurements=[age],
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Hand)],
        source_images=[source],
    )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), name=DEVICE_NAME
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept("37362-1", "LN", "XR Bone age"),
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.Comprehensive3DSR(
        evidence=[image],
        content=content[0],
        series_number=9000,  # our choice: behind the images
        series_instance_uid=hd.UID(),
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=DEVICE_NAME,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )


def _parameters(answer: Prediction, level: float) -> list[str]:
    values = [f"sex {answer.sex}"]
    if answer.lower is not None and answer.upper is not None:
        values.append(f"{level:.0%} interval {answer.lower:.1f} to {answer.upper:.1f} months")
    return [*values, *(f"flag {name}" for name in answer.flags)]
