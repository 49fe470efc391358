"""Small radiographs made in the test: a drawn chest, as arrays and as DICOM files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

ROWS, COLUMNS, BITS = 96, 80, 12


@pytest.fixture(scope="session")
def stored():
    """12-bit stored values, low is air: dark lungs and border, bright mediastinum, noise."""
    y, x = np.mgrid[0 : 1 : ROWS * 1j, 0 : 1 : COLUMNS * 1j]
    body = np.clip(1 - ((x - 0.5) / 0.46) ** 4, 0, 1)
    middle = np.exp(-(((x - 0.5) / 0.12) ** 2))
    lungs = sum(
        np.exp(-(((x - side) / 0.12) ** 2) - ((y - 0.45) / 0.25) ** 2) for side in (0.27, 0.73)
    )
    values = 600 + body * (1500 + 1400 * middle - 900 * lungs + 300 * y)
    values += np.random.default_rng(0).normal(0, 20, values.shape)
    return values.clip(0, 2**BITS - 1).astype(np.uint16)


@pytest.fixture
def make_dataset(stored):
    """Make a CR data set; keywords override its attributes, None leaves one out."""

    def make(pixels: np.ndarray | None = None, **attributes: object) -> Dataset:
        pixels = stored if pixels is None else pixels
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        bits = 8 * pixels.dtype.itemsize
        values: dict[str, object] = {
            "SOPClassUID": ComputedRadiographyImageStorage,
            "SOPInstanceUID": "1.2.3.4",
            "StudyInstanceUID": "1.2.3.1",
            "SeriesInstanceUID": "1.2.3.2",
            "Modality": "CR",
            "BodyPartExamined": "CHEST",
            "ViewPosition": "PA",
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": bits,
            "BitsStored": min(bits, BITS),
            "HighBit": min(bits, BITS) - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }
        for keyword, value in (values | attributes).items():
            if value is not None:
                setattr(dataset, keyword, value)
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        return dataset

    return make


@pytest.fixture
def write(tmp_path):
    """Write a data set as a DICOM file."""

    def to_file(dataset: Dataset, name: str = "scan.dcm") -> Path:
        path = tmp_path / name
        dataset.save_as(path, enforce_file_format=True)
        return path

    return to_file


@pytest.fixture
def real_dicom():
    """Folder of real DICOM files; the tests that need it say so when it is absent."""
    root = os.environ.get("MEDLLM_DATA") or Path(__file__).parents[3] / "shared" / "data"
    folder = Path(root) / "dicom"
    if not folder.is_dir():
        pytest.skip(f"real DICOM files are not at {folder}; set MEDLLM_DATA")
    return folder
