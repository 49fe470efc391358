"""Synthetic frontal chest radiographs, whose truth is known to the pixel."""

from __future__ import annotations

from medllm.phantom.dicom import write_dicom
from medllm.phantom.lesions import random_lesions
from medllm.phantom.make import make_phantom, pixels_to_try
from medllm.phantom.record import PHANTOM_FINDINGS, Lesion, Phantom

__all__ = [
    "PHANTOM_FINDINGS",
    "Lesion",
    "Phantom",
    "make_phantom",
    "pixels_to_try",
    "random_lesions",
    "write_dicom",
]
