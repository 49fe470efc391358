"""A phantom as a DICOM file, plainly marked as synthetic."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from medllm.files import replace_file
from medllm.phantom.record import Phantom

Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
Modality = Literal["CR", "DX"]

_BITS = 12
_MAXIMUM = 2**_BITS - 1
_DATE, _TIME = "20000101", "120000"  # fixed, so that a second write gives the same bytes
# Code Value, Coding Scheme Designator, Code Meaning; DICOM PS3.16 CID 4009 and CID 4010.
_CHEST = ("51185008", "SCT", "Chest")
_VIEWS = {
    "PA": ("272479007", "SCT", "postero-anterior"),
    "AP": ("399348003", "SCT", "antero-posterior"),
}


def write_dicom(
    phantom: Phantom,
    path: Path | str,
    *,
    photometric_interpretation: Photometric = "MONOCHROME2",
    modality: Modality = "DX",
    transfer_syntax: UID = ExplicitVRLittleEndian,
) -> Path:
    """Write a phantom as a DX (for presentation) or CR image.

    Pixels are stored in 12 bits with a window that gives the display values back, to half
    a grey level. The two polarities hold exactly inverse values. All UIDs come from the
    seed and from the arguments, and dates are fixed, so a second write is the same file.

    Args:
        phantom: The phantom.
        path: File to write; its folder must exist.
        photometric_interpretation: Polarity of the stored values.
        modality: Which kind of image object to write.
        transfer_syntax: Encoding, of either byte order; a lossless one that pydicom can write.

    Returns:
        The path.

    Source:
        DICOM PS3.3 A.2 (CR), A.26 (DX), C.8.11 (DX modules).
    """
    path = Path(path)
    stored = np.round(phantom.pixels * _MAXIMUM).astype(np.uint16)
    if photometric_interpretation == "MONOCHROME1":
        stored = _MAXIMUM - stored
    dataset = Dataset()
    _add_patient_and_study(dataset, phantom, modality)
    name = f"{modality}-{photometric_interpretation}-{phantom.pixels.shape}-{phantom.findings}"
    dataset.SOPInstanceUID = _uid(phantom, f"instance-{name}-{phantom.lesions}")
    _add_image(dataset, phantom, stored, photometric_interpretation)
    # pydicom writes every number in the byte order asked for, but for the pixels'.
    order = "<" if transfer_syntax.is_little_endian else ">"
    dataset.PixelData = stored.astype(f"{order}u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if modality == "DX":
        dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
        _add_dx(dataset, phantom, photometric_interpretation)
    else:
        dataset.SOPClassUID = ComputedRadiographyImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta = meta
    if transfer_syntax.is_compressed and not transfer_syntax.is_deflated:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian  # what the dataset holds until now
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    replace_file(path, stream.getvalue())
    return path


def _uid(phantom: Phantom, name: str) -> UID:
    """A UID that depends on the seed and the name alone."""
    return generate_uid(entropy_srcs=["medllm phantom", str(phantom.seed), name])


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _add_patient_and_study(dataset: Dataset, phantom: Phantom, modality: Modality) -> None:
    dataset.PatientName = f"PHANTOM^SEED{phantom.seed}"
    dataset.PatientID = f"PHANTOM{phantom.seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = phantom.sex
    dataset.PatientAge = f"{phantom.age_years:03d}Y"
    dataset.StudyInstanceUID = _uid(phantom, "study")
    dataset.StudyID = "1"
    dataset.StudyDate, dataset.StudyTime = _DATE, _TIME
    dataset.StudyDescription = "Synthetic chest phantom"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Modality = modality
    dataset.SeriesInstanceUID = _uid(phantom, f"series-{modality}")
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = f"Chest {phantom.view}, synthetic"
    dataset.Manufacturer = "medllm"
    dataset.ManufacturerModelName = "medllm phantom"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = phantom.view


def _add_image(
    dataset: Dataset, phantom: Phantom, stored: np.ndarray, photometric: Photometric
) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.InstanceNumber = 1
    dataset.ContentDate, dataset.ContentTime = _DATE, _TIME
    dataset.AcquisitionDate, dataset.AcquisitionTime = _DATE, _TIME
    # Rows run to the patient's left, columns to the feet.
    dataset.PatientOrientation = ["L", "F"]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.ImagerPixelSpacing = [f"{spacing:.6f}" for spacing in phantom.pixel_spacing_mm]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, _BITS, _BITS - 1
    dataset.PixelRepresentation = 0
    # LINEAR, PS3.3 C.11.2.1.2.1: maps 0..4095 onto the whole output range.
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"


def _add_dx(dataset: Dataset, phantom: Phantom, photometric: Photometric) -> None:
    inverse = photometric == "MONOCHROME1"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverse else -1
    dataset.ImageLaterality = "U"  # the chest is not paired
    dataset.DetectorType = "DIRECT"
    dataset.PositionerType = "NONE"
    dataset.AnatomicRegionSequence = [_code(*_CHEST)]
    view = _code(*_VIEWS[phantom.view])
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.AcquisitionContextSequence = []
