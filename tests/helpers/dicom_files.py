"""Write DICOM files in any transfer syntax."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

PLAIN = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
COMPRESSED = {"RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}
JPEG = {"JPEG lossless": JPEGLosslessSV1, "JPEG Extended": JPEGExtended12Bit}
SYNTAXES = [*PLAIN, *COMPRESSED, *JPEG]


def ramp(bits: int = 12, size: tuple[int, int] = (96, 64)) -> NDArray[np.uint16]:
    """Return an image with many gray values and no symmetry."""
    y, x = np.mgrid[: size[0], : size[1]]
    values = (x**2 / size[1] ** 2 + y / size[0] + 0.2 * np.sin(x / 3) ** 2) / 2.2
    return (values / values.max() * (2**bits - 1)).astype(np.uint16)


def write_dicom(
    path: Path, values: NDArray[Any], syntax: str = "explicit", bits: int = 12, **tags: Any
) -> Path:
    """Write a gray or color image with the given tags; `None` omits a tag."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = {**PLAIN, **JPEG}.get(syntax, ExplicitVRLittleEndian)
    little = syntax != "big endian"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_little_endian=little)
    wide = values.dtype.itemsize > 1
    named = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "Modality": "DX",
        "PatientName": "Doe^Jane",
        "PatientID": "SECRET-17",
        "PatientBirthDate": "20100301",
        "PatientSex": "F",
        "StudyDate": "20200301",
        "StudyID": "1",
        "AccessionNumber": "A-4711",
        "ReferringPhysicianName": "House",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "SamplesPerPixel": 1 if values.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if values.ndim == 2 else "RGB",
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": 16 if wide else 8,
        "BitsStored": bits if wide else 8,
        "HighBit": (bits if wide else 8) - 1,
        "PixelRepresentation": 0,
        **({"PlanarConfiguration": 0} if values.ndim == 3 else {}),
        **tags,
    }
    for name, value in named.items():
        if value is not None:
            setattr(dataset, name, value)
    order = "<" if little else ">"
    dataset.PixelData = values.astype(f"{order}u{values.dtype.itemsize}").tobytes()
    dataset["PixelData"].VR = "OW" if wide else "OB"
    if syntax in COMPRESSED:
        dataset.compress(COMPRESSED[syntax])
    if syntax in JPEG:
        lossless = syntax == "JPEG lossless"
        options = {"lossless": True, "predictor": 1} if lossless else {"level": 100}
        frame = imagecodecs.jpeg_encode(values, bitspersample=bits if wide else 8, **options)
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path
