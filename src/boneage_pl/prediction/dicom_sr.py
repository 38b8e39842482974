"""DICOM structured reports of predictions."""

import logging
import re
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

NAME = "boneage_pl"
_SCHEME = "99BONEAGE_PL"  # private coding schemes begin with 99 (PS3.16, 8)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# type 2 attributes of patient and study (PS3.3 C.7.1.1, C.7.2.1): required, may be empty
_IDENTIFYING = ("PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName", "StudyID")
_TIMES = {"PatientBirthDate": r"\d{8}", "StudyDate": r"\d{8}", "StudyTime": r"\d{2,6}(\.\d{1,6})?"}


def needs_highdicom() -> None:
    """Import highdicom, see `import_optional`, and suppress its warnings."""
    import_optional("highdicom", "dicom_sr=true", "dicom")
    logging.getLogger("highdicom").setLevel(logging.ERROR)
    # globally, since `warnings.catch_warnings` is not thread-safe
    warnings.filterwarnings("ignore", module=r"(highdicom|pydicom)\.")


def write_dicom_sr(prediction: Prediction, model: str, level: float, *, identify: bool) -> Path:
    """Write a structured report next to the DICOM file, as `<name>_F.sr.dcm`, and return its path.

    Args:
        prediction: of a file, with months.
        model, level, identify: see `build_dicom_sr`.

    Raises:
        BoneAgeError: see `build_dicom_sr`; or the report exists or cannot be written.
    """
    source = Path(prediction.path)
    path = source.with_name(f"{stem_of(source)}_{prediction.sex}.sr.dcm")
    try:
        if path.exists():
            raise BoneAgeError(f"{path} exists already and is not overwritten.")
        content = build_dicom_sr(read_file(source), prediction, model, level, identify=identify)
        with atomic_path(path) as beside:
            beside.write_bytes(content)
    except BoneAgeError as error:
        raise BoneAgeError(f"dicom_sr=true: {source}: {error}") from error
    except OSError as error:
        raise BoneAgeError(f"dicom_sr=true: {path} cannot be written: {error.strerror}.") from error
    return path


def build_dicom_sr(
    image: bytes, prediction: Prediction, model: str, level: float, *, identify: bool
) -> bytes:
    """Return the bytes of a Comprehensive 3D SR of a prediction.

    The bone age is LOINC 37362-1 in UCUM `mo`, with the algorithm's name and version (TID 4019). The interval
    bounds and the difference to the chronological age are further measurements, the quality flags coded
    evaluations. The verification flag is UNVERIFIED.

    Args:
        image: bytes of the predicted DICOM file.
        prediction: with months.
        model: name of the algorithm, such as the experiment's.
        level: coverage of the prediction interval.
        identify: copy patient and study from the image, which a PACS needs to file the report; otherwise it
            refers to the image by UIDs and has only the sex.

    Raises:
        BoneAgeError: highdicom is not installed, the image is out-of-distribution, or the file is not a
            DICOM file with the required attributes.
    """
    needs_highdicom()
    if "out_of_distribution" in prediction.flags:
        raise BoneAgeError("out_of_distribution: no measurement is reported.")
    file = BytesIO()
    try:
        _report(_evidence(image, identify=identify), prediction, model, level).save_as(file)
    except BoneAgeError:
        raise
    except Exception as error:  # highdicom and pydicom raise many types
        reason = " ".join(str(error).split())[:120]
        raise BoneAgeError(f"it lacks required attributes ({reason}).") from error
    return file.getvalue()


def _evidence(content: bytes, *, identify: bool) -> Any:
    """Return the attributes of an image that the report repeats, in UTF-8; highdicom would copy many more."""
    from pydicom import Dataset, dcmread

    image = dcmread(BytesIO(content), force=True, stop_before_pixels=True)
    if "SOPInstanceUID" not in image:
        raise BoneAgeError("not a DICOM file.")
    evidence = Dataset()
    evidence.SpecificCharacterSet = "ISO_IR 192"
    for name in _UIDS:
        uid = image[name].value
        if not uid.is_valid:
            raise ValueError(f"{name} is not a valid UID")
        setattr(evidence, name, uid)
    sex = str(image.get("PatientSex", ""))
    evidence.PatientSex = sex if sex in ("F", "M", "O") else ""
    for name in (*_IDENTIFYING, *_TIMES):
        text = str(image.get(name) or "") if identify else ""
        setattr(evidence, name, text if re.fullmatch(_TIMES.get(name, ".*"), text) else "")
    return evidence


def _report(image: Any, prediction: Prediction, model: str, level: float) -> Any:
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    def private_code(value: str, meaning: str = "") -> Any:
        return sr.CodedConcept(value, _SCHEME, meaning or value.replace("_", " "))

    bone_age = sr.CodedConcept("37362-1", "LN", "XR Bone age")
    bound = f"bound of the {100 * level:g} % prediction interval"
    month = codes.UCUM.Month
    values = [
        (bone_age, prediction.months, month),
        (private_code("lower", f"Lower {bound}"), prediction.lower, month),
        (private_code("upper", f"Upper {bound}"), prediction.upper, month),
        (
            private_code("age_difference", "Bone age minus chronological age"),
            prediction.age_difference,
            month,
        ),
        (
            private_code("age_difference_sd", "Bone age minus chronological age in standard deviations"),
            prediction.age_difference_sd,
            codes.UCUM.NoUnits,
        ),
    ]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier="Bone age"),
        algorithm_id=sr.AlgorithmIdentification(
            name=f"{NAME} {model}",
            version=__version__,
            family=codes.DCM.ArtificialIntelligence,
            parameters=[f"sex {prediction.sex}"],
        ),
        measurements=[
            sr.Measurement(name=name, value=round(float(value), 2), unit=unit)
            for name, value, unit in values
            if value is not None
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(private_code("quality_flag"), private_code(flag))
            for flag in prediction.flags
        ],
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Hand)],
        source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(uid=hd.UID(), name=NAME),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=bone_age,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.Comprehensive3DSR(
        evidence=[image],
        content=content[0],
        series_number=9000,  # our choice: after the images
        series_instance_uid=hd.UID(),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=NAME,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
