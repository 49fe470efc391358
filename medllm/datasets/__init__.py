"""Readers of labelled data sets, and splits by patient."""

from medllm.datasets.csv_table import read_csv
from medllm.datasets.kermany import read_kermany
from medllm.datasets.nih import read_nih
from medllm.datasets.record import ImageRecord
from medllm.datasets.registry import READERS, read_dataset
from medllm.datasets.splits import split_by_patient

__all__ = [
    "READERS",
    "ImageRecord",
    "read_csv",
    "read_dataset",
    "read_kermany",
    "read_nih",
    "split_by_patient",
]
