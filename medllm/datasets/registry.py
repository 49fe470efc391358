"""The data sets that medllm reads, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medllm.datasets.brax import BRAX
from medllm.datasets.chexlocalize import CHEXLOCALIZE
from medllm.datasets.chexpert import CHEXPERT
from medllm.datasets.chexpert_plus import CHEXPERT_PLUS
from medllm.datasets.covid_chestxray import COVID_CHESTXRAY
from medllm.datasets.csv_table import CSV
from medllm.datasets.dataset import DataSet
from medllm.datasets.kermany import KERMANY
from medllm.datasets.medmnist import CHESTMNIST, PNEUMONIAMNIST
from medllm.datasets.mimic_cxr import MIMIC_CXR
from medllm.datasets.nih import NIH
from medllm.datasets.openi import OPENI
from medllm.datasets.padchest import PADCHEST
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord
from medllm.datasets.rsna import RSNA
from medllm.datasets.siim import SIIM
from medllm.datasets.tuberculosis import MONTGOMERY, SHENZHEN
from medllm.datasets.vindr import VINDR
from medllm.errors import LabelError, did_you_mean

# A new data set is one module with its reader, one row here, and its card in `datasets/`.
DATASETS: Mapping[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        CSV,
        KERMANY,
        NIH,
        RSNA,
        SIIM,
        VINDR,
        PNEUMONIAMNIST,
        CHESTMNIST,
        CHEXPERT,
        CHEXPERT_PLUS,
        CHEXLOCALIZE,
        MIMIC_CXR,
        BRAX,
        PADCHEST,
        OPENI,
        COVID_CHESTXRAY,
        MONTGOMERY,
        SHENZHEN,
    )
}


def find_dataset(name: str) -> DataSet:
    """Look a data set up by its name.

    Args:
        name: A key of `DATASETS`; `csv` for a table of one's own.

    Returns:
        The data set.

    Raises:
        LabelError: No data set has this name.
    """
    if name not in DATASETS:
        hint = did_you_mean(name, DATASETS) or " A table of your own is read as 'csv'."
        raise LabelError(
            f"'{name}' is not a known data set; use one of: {', '.join(DATASETS)}.{hint}",
            code="unknown-dataset",
        )
    return DATASETS[name]


def read_dataset(
    name: str, root: Path | str, policy: LabelPolicy | None = None
) -> list[ImageRecord]:
    """Read a data set by its name.

    Args:
        name: A key of `DATASETS`; `csv` for a table of one's own.
        root: Folder of the copy on this machine.
        policy: Label policy; the data set's own when None.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: No data set has this name, or the copy is not as the reader wants it.
    """
    return find_dataset(name).read(Path(root), policy)
