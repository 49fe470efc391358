"""Radiographs in: reading DICOM, PNG and JPEG, quality gates, identity kept apart."""

from __future__ import annotations

from medllm.dicom.gates import ACCEPTABLE
from medllm.dicom.header import Identity, read_identity
from medllm.dicom.radiograph import Gate, PixelStep, Radiograph
from medllm.dicom.read import read_radiograph
from medllm.dicom.search import find_images

__all__ = [
    "ACCEPTABLE",
    "Gate",
    "Identity",
    "PixelStep",
    "Radiograph",
    "find_images",
    "read_identity",
    "read_radiograph",
]
