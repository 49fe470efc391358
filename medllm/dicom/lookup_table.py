"""The lookup tables of the Modality LUT and VOI LUT sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer, Real
from pydicom.dataset import Dataset

from medllm.errors import DicomError


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A table from input values to output values.

    Attributes:
        entries: Output values, the first for `first_input`.
        first_input: Input value of the first entry; lower inputs map to it too.
        bits: Bits that an entry uses; the output's range is 0 to 2**bits - 1.
    """

    entries: Integer[np.ndarray, " entries"]
    first_input: int
    bits: int

    def __call__(
        self, values: Real[np.ndarray, "rows columns"]
    ) -> Float64[np.ndarray, "rows columns"]:
        """Map values; what lies outside the table takes its nearest end.

        Args:
            values: Input values; fractions, after a rescale, are rounded.

        Returns:
            Entries of the table.
        """
        index = np.rint(values).astype(np.int64) - self.first_input
        inside = index.clip(0, len(self.entries) - 1)
        return np.asarray(self.entries[inside], dtype=np.float64)


def read_lookup_table(item: Dataset, *, little_endian: bool, signed: bool) -> LookupTable:
    """Read an item of Modality LUT Sequence (0028,3000) or VOI LUT Sequence (0028,3010).

    Args:
        item: The item.
        little_endian: Byte order of the data set.
        signed: Whether the table's inputs can be negative.

    Returns:
        The table. Its `bits` are those of LUT Descriptor, unless the entries leave two or
        more of them unused (a device that states 16 for a 12-bit table would give an almost
        black image) or need more: then those that the entries need.

    Raises:
        DicomError: LUT Descriptor and LUT Data do not fit together.

    Source:
        DICOM PS3.3 C.11.1.1 and C.11.2.1.1.
    """
    try:
        n_entries, first, bits = (int(value) for value in item.LUTDescriptor)
        n_entries = n_entries % 2**16 or 2**16  # 0 stands for 65536, which US cannot hold
        if signed and first >= 2**15:  # SS, parsed as US
            first -= 2**16
        entries = _entries(item["LUTData"].value, n_entries, little_endian=little_endian)
    except Exception as error:  # noqa: BLE001  turned into one kind, never passed over
        raise DicomError(
            "LUT Descriptor (0028,3002) and LUT Data (0028,3006) do not form a table "
            f"({type(error).__name__}); remove the sequence, or export the image again.",
            code="bad-lookup-table",
        ) from None
    needed = max(1, int(entries.max()).bit_length())
    return LookupTable(entries, first, bits if needed in (bits, bits - 1) else needed)


def _entries(
    data: bytes | int | list[int], n_entries: int, *, little_endian: bool
) -> Integer[np.ndarray, " entries"]:
    if isinstance(data, bytes):
        # With 8 bits an entry, a device may pack two entries a word.
        width = 1 if len(data) in (n_entries, n_entries + 1) and n_entries > 1 else 2
        dtype = np.dtype(f"{'<' if little_endian else '>'}u{width}")
        values = np.frombuffer(data, dtype, count=n_entries).astype(np.int64)
    else:
        values = np.atleast_1d(np.asarray(data, dtype=np.int64))
        if values.min() < 0:  # parsed as SS
            values = values % 2**16
    if len(values) != n_entries:
        raise ValueError
    return values
