"""Readers of labelled data sets, label policies, selection, and splits by patient."""

from medllm.datasets.brax import read_brax
from medllm.datasets.chexlocalize import read_chexlocalize
from medllm.datasets.chexpert import read_chexpert
from medllm.datasets.chexpert_plus import read_chexpert_plus
from medllm.datasets.covid_chestxray import read_covid_chestxray
from medllm.datasets.csv_table import read_csv
from medllm.datasets.dataset import DataSet, Published
from medllm.datasets.kermany import read_kermany
from medllm.datasets.masks import Mask, PictureMask, RunLengthMask
from medllm.datasets.medmnist import read_chestmnist, read_pneumoniamnist
from medllm.datasets.mimic_cxr import read_mimic_cxr
from medllm.datasets.nih import read_nih
from medllm.datasets.openi import read_openi
from medllm.datasets.padchest import read_padchest
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord
from medllm.datasets.registry import DATASETS, find_dataset, read_dataset
from medllm.datasets.rsna import read_rsna
from medllm.datasets.selection import FRONTAL, Selection, select
from medllm.datasets.siim import read_siim
from medllm.datasets.splits import (
    DEFAULT_SHARES,
    patient_name,
    split_by_patient,
    with_split,
    write_split,
)
from medllm.datasets.tuberculosis import read_montgomery, read_shenzhen
from medllm.datasets.vindr import read_vindr

__all__ = [
    "DATASETS",
    "DEFAULT_SHARES",
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
    "patient_name",
    "read_brax",
    "read_chestmnist",
    "read_chexlocalize",
    "read_chexpert",
    "read_chexpert_plus",
    "read_covid_chestxray",
    "read_csv",
    "read_dataset",
    "read_kermany",
    "read_mimic_cxr",
    "read_montgomery",
    "read_nih",
    "read_openi",
    "read_padchest",
    "read_pneumoniamnist",
    "read_rsna",
    "read_shenzhen",
    "read_siim",
    "read_vindr",
    "select",
    "split_by_patient",
    "with_split",
    "write_split",
]
