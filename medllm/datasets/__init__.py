"""Readers of labelled data sets, and splits by patient."""

from medllm.datasets.kermany import read_kermany
from medllm.datasets.nih import read_nih
from medllm.datasets.record import ImageRecord
from medllm.datasets.splits import split_by_patient

__all__ = ["ImageRecord", "read_kermany", "read_nih", "split_by_patient"]
