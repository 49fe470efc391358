"""The record of one labelled image in a data set."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medllm.datasets.archive import archived_image
from medllm.datasets.masks import Mask
from medllm.dicom import Radiograph, read_radiograph
from medllm.dicom.pixels import Polarity
from medllm.dicom.read import radiograph_of
from medllm.errors import LabelError

# x, y, width, height in pixels of the file.
Box = tuple[float, float, float, float]

# A column of whole numbers with blanks is written as 1.0 and 0.0 by pandas.
_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "": None}


@dataclass(frozen=True)
class ImageRecord:
    """One labelled image.

    Attributes:
        dataset: Name of the data set.
        path: The file that holds the image; it is opened by `radiograph` and not before.
        patient_id: The data set's own pseudonym, unique within the data set.
        labels: 1 or 0 a finding's key, or between them where a policy makes an uncertain label
            soft; a finding that is not in it is unknown.
        attributes: What divides images into groups, as it stands in the data set's table, but
            for `age_years` (a number), `sex` (`F` or `M`) and `view_position` (`PA`, `AP`,
            `LATERAL` or the table's word in capitals), which are blank where unknown.
        boxes: Boxes a finding's key, each x, y, width, height in pixels of the file.
        masks: Outlines a finding's key.
        study_id: The data set's own pseudonym of the study; blank where there is none.
        split: `train`, `validation` or `test` of the official split; blank where there is none.
        other_labels: Labels of a second source, such as another labeller, by its name; for audits.
        member: Where the image lies within the file, as `ARRAY/INDEX` of a NumPy archive; blank
            where the file is the image.
    """

    dataset: str
    path: Path
    patient_id: str
    labels: Mapping[str, float]
    attributes: Mapping[str, str] = field(default_factory=dict)
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    masks: Mapping[str, Mask] = field(default_factory=dict)
    study_id: str = ""
    split: str = ""
    other_labels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    member: str = ""

    @property
    def name(self) -> str:
        """Name of the image for a table: the file's, and its place within the file."""
        return f"{self.path.name}/{self.member}" if self.member else self.path.name

    def radiograph(
        self, *, accept: Collection[str] = (), polarity: Polarity = "auto"
    ) -> Radiograph:
        """Read the image.

        Args:
            accept: Codes of gates that shall not refuse it.
            polarity: Override of the file's.

        Returns:
            The radiograph.

        Raises:
            DicomError: It cannot be read, or a gate refuses it.
        """
        if not self.member:
            return read_radiograph(self.path, accept=accept, polarity=polarity)
        values = archived_image(self.path, self.member)
        return radiograph_of(values, self.path, accept=accept, polarity=polarity)

    def content(self) -> bytes:
        """Give the bytes that the image is stored as, to tell equal images.

        Raises:
            OSError: The file cannot be read.
        """
        if self.member:
            return archived_image(self.path, self.member).tobytes()
        return self.path.read_bytes()


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a CSV file whose columns are known.

    Args:
        path: The file.
        columns: Columns that must be there.

    Returns:
        A dictionary a row.

    Raises:
        LabelError: The file or a column is missing, or the file is not a table.
    """
    return [row for _, row in read_rows(path, columns)]


def read_rows(path: Path, columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with the place of each row, so that an error can name it.

    Args:
        path: The file; UTF-8, divided by commas.
        columns: Columns that must be there.

    Returns:
        Line number and dictionary a row; the header is line 1.

    Raises:
        LabelError: The file or a column is missing, or the file is not a table: a column twice,
            a row with more or fewer fields than the header, or bytes that are not UTF-8.
    """
    if not path.is_file():
        raise LabelError(
            f"{path.name} is not in {path.parent}; point --root at the data set's folder."
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            _require_columns(path, reader.fieldnames, columns)
            return list(_whole_rows(path, reader))
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 ({error.reason}); save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise LabelError(f"{path} is not a CSV table ({error}); save it as CSV UTF-8.") from None


def _require_columns(path: Path, names: list[str], wanted: Iterable[str]) -> None:
    if missing := [column for column in wanted if column not in names]:
        raise LabelError(
            f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(names)}."
        )
    if twice := [name for index, name in enumerate(names) if name and name in names[:index]]:
        raise LabelError(f"{path} has the column '{twice[0]}' twice; leave one.")


def _whole_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    for row in reader:
        # DictReader puts fields too many under None, and None for those that are missing.
        if None in row or None in row.values():
            wanted = len(reader.fieldnames or [])
            found = "more" if None in row else "fewer"
            raise LabelError(
                f"{path}, line {reader.line_num}: the row has {found} fields than the {wanted} of "
                "the header; quote a field that holds a comma."
            )
        yield reader.line_num, row


def read_label(where: str, finding: str, text: str) -> int | None:
    """Read one label of a table.

    Args:
        where: File and line, for the message.
        finding: The column.
        text: What stands there.

    Returns:
        1 with the finding, 0 without, None where it is blank: unknown.

    Raises:
        LabelError: Anything else stands there.

    Example:
        >>> read_label("labels.csv, line 2", "pneumonia", "1")
        1
    """
    try:
        return _LABELS[text.strip()]
    except KeyError:
        raise LabelError(
            f"{where}: {finding} is '{text}'; wanted is 1 (with), 0 (without) or blank "
            "(unknown). Leave an uncertain label blank."
        ) from None
