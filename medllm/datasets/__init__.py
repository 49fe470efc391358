"""Readers of labelled data sets, label policies, selection, and splits by patient."""

from medllm.datasets.csv_table import read_csv
from medllm.datasets.dataset import DataSet, Published
from medllm.datasets.kermany import read_kermany
from medllm.datasets.masks import Mask, PictureMask, RunLengthMask
from medllm.datasets.nih import read_nih
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord
from medllm.datasets.registry import DATASETS, find_dataset, read_dataset
from medllm.datasets.selection import FRONTAL, Selection, select
from medllm.datasets.splits import split_by_patient, with_split, write_split

__all__ = [
    "DATASETS",
    "FRONTAL",
    "DataSet",
    "ImageRecord",
    "LabelPolicy",
    "Mask",
    "PictureMask",
    "Published",
    "RunLengthMask",
    "Selection",
    "find_dataset",
    "read_csv",
    "read_dataset",
    "read_kermany",
    "read_nih",
    "select",
    "split_by_patient",
    "with_split",
    "write_split",
]
