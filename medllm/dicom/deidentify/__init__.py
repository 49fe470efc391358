"""Radiographs without their patient: DICOM PS3.15 Annex E, keyed, checked, written down."""

from __future__ import annotations

from medllm.dicom.deidentify.file import Deidentified, deidentify_file
from medllm.dicom.deidentify.folder import Outcome, deidentify_files, write_record
from medllm.dicom.deidentify.gates import ACCEPTABLE
from medllm.dicom.deidentify.key import Key, open_key
from medllm.dicom.deidentify.profile import removable

__all__ = [
    "ACCEPTABLE",
    "Deidentified",
    "Key",
    "Outcome",
    "deidentify_file",
    "deidentify_files",
    "open_key",
    "removable",
    "write_record",
]
