"""The record of one labelled image in a data set."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medllm.datasets.archive import archived_image
from medllm.datasets.faults import Faults
from medllm.datasets.masks import Mask
from medllm.dicom import Radiograph, read_radiograph
from medllm.dicom.pixels import Polarity
from medllm.dicom.read import radiograph_of
from medllm.errors import LabelError

# x, y, width, height in pixels of the file.
Box = tuple[float, float, float, float]

# What spreadsheets put between columns in place of a comma.
_MARKS = {";": "semicolons", "\t": "tabs"}
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
            for `age_years` (0 to 122), `sex` (`F`, `M`) and `view_position` (`PA`, `AP`,
            `LATERAL`), the last two else the word of a table in capitals; they are blank where
            unknown. A view is `UNKNOWN` where the data set holds other views than frontal ones
            and does not tell which this is, so that selection leaves it out.
        boxes: Boxes a finding's key, each x, y, width, height in pixels of the file.
        masks: Outlines a finding's key.
        study_id: The data set's own pseudonym of the study; blank where there is none.
        split: `train`, `validation` or `test` of the official split; blank where there is none.
        other_labels: Labels of a second source, such as another labeller, by its name; for audits.
        member: Where the image lies within the file, as `ARRAY/INDEX` of a NumPy archive; blank
            where the file is the image.
        indication: What the request said of the patient, in the data set's own words; blank where
            unknown.
        polarity: `inverted` where the data set's table says of a file without a header that its
            low values are bright; `auto` leaves it to the file.
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
    indication: str = ""
    polarity: Polarity = "auto"

    @property
    def name(self) -> str:
        """Name of the image for a table: the file's, and its place within the file."""
        return f"{self.path.name}/{self.member}" if self.member else self.path.name

    def place(self, root: str | Path) -> str:
        """Name the image by its path in a folder, which may hold the patient's pseudonym.

        Args:
            root: Folder of the data set.

        Returns:
            The path with `/`; the name alone where the image lies elsewhere.
        """
        if not self.path.is_relative_to(root):
            return self.name
        inside = self.path.relative_to(root).as_posix()
        return f"{inside}/{self.member}" if self.member else inside

    def radiograph(
        self, *, accept: Collection[str] = (), polarity: Polarity = "auto"
    ) -> Radiograph:
        """Read the image.

        Args:
            accept: Codes of gates that shall not refuse it.
            polarity: Override of the file's and of the record's; `auto` is the record's.

        Returns:
            The radiograph.

        Raises:
            DicomError: It cannot be read, or a gate refuses it.
        """
        polarity = self.polarity if polarity == "auto" else polarity
        if not self.member:
            return read_radiograph(self.path, accept=accept, polarity=polarity)
        values = archived_image(self.path, self.member)
        return radiograph_of(values, self.path, accept=accept, polarity=polarity)

    def content(self) -> bytes:
        """Give the bytes that the image is stored as, to tell equal images.

        Returns:
            The file's bytes, or those of the array that lies in it.

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
        path: The file; UTF-8, divided by commas, and packed by gzip if its name ends in `.gz`.
        columns: Columns that must be there.

    Returns:
        Line number and dictionary a row; the header is line 1.

    Raises:
        LabelError: The file or a column is missing, or the file is not a table: a column twice,
            a row with more or fewer fields than the header, or bytes that are not UTF-8.
    """
    return list(iterate_rows(path, columns))


def iterate_rows(path: Path, columns: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file as `read_rows` does, a row at a time, where all rows would fill the memory.

    Args:
        path: The file.
        columns: Columns that must be there.

    Yields:
        Line number and dictionary.

    Raises:
        LabelError: As of `read_rows`; rows with more or fewer fields are passed over, and told
            together at the end.
    """
    if not path.is_file():
        raise LabelError(
            f"{path.name} is not in {path.parent}; point --root at the data set's folder."
        )
    try:
        with _open_text(path) as stream:
            reader = csv.DictReader(stream)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            _require_columns(path, reader.fieldnames, tuple(columns))
            yield from _whole_rows(path, reader)
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 ({error.reason}); save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise LabelError(f"{path} is not a CSV table ({error}); save it as CSV UTF-8.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LabelError(
            f"{path} cannot be unpacked ({type(error).__name__}); get the file again."
        ) from None


def _open_text(path: Path) -> io.TextIOWrapper:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def _require_columns(path: Path, names: list[str], wanted: Sequence[str]) -> None:
    if missing := [column for column in wanted if column not in names]:
        if len(missing) < len(wanted):
            has = f"it has {', '.join(names)}"
        elif other := [words for mark, words in _MARKS.items() if _divided(mark, names, wanted)]:
            has = f"its columns are divided by {other[0]}; save it with commas"
        elif not set("".join(names)) & set("0123456789./\\"):
            has = f"it has {', '.join(names)}; rename what holds them"
        else:
            # A file's name or a number: the first line may be a patient's, and is not repeated.
            has = "its first line names none of them; it must be a line of column names"
        raise LabelError(f"{path} lacks the column(s) {', '.join(missing)}; {has}.")
    if twice := [name for index, name in enumerate(names) if name and name in names[:index]]:
        raise LabelError(f"{path} has the column '{twice[0]}' twice; leave one.")


def _divided(mark: str, names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Say whether a first line has the wanted names if it is divided by another mark."""
    return set(wanted) <= {name.strip() for name in ",".join(names).split(mark)}


def _whole_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    faults = Faults(path.parent)
    for row in reader:
        # A comma at the end of the header makes a column without a name, which rows may lack.
        row.pop("", None)
        # DictReader puts fields too many under None, and None for those that are missing.
        if None in row or None in row.values():
            wanted = len(reader.fieldnames or [])
            found = "more" if None in row else "fewer"
            faults.add(
                f"{found} fields",
                f"{path}, line {reader.line_num}: the row has {found} fields than the {wanted} of "
                "the header; quote a field that holds a comma.",
                reader.line_num,
            )
        else:
            yield reader.line_num, row
    faults.refuse()


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


def read_given(where: str, column: str, text: str) -> str:
    """Read a cell that may not be blank, such as a patient's pseudonym or an image's name.

    Args:
        where: File and line, for the message.
        column: The column.
        text: What stands there; spaces around it do not count.

    Returns:
        The text without them.

    Raises:
        LabelError: It is blank.

    Example:
        >>> read_given("labels.csv, line 2", "patient_id", " 17 ")
        '17'
    """
    if given := text.strip():
        return given
    raise LabelError(f"{where}: {column} is blank; get the table again.")


def read_word(where: str, column: str, text: str, words: Mapping[str, str]) -> str:
    """Read one word of a table whose words are known.

    Args:
        where: File and line, for the message.
        column: The column.
        text: What stands there; spaces around it do not count.
        words: What each whole spelling stands for.

    Returns:
        What the word stands for.

    Raises:
        LabelError: It is none of the spellings.

    Example:
        >>> read_word("valid.csv, line 2", "Sex", "Female", {"Female": "F", "Male": "M"})
        'F'
    """
    try:
        return words[text.strip()]
    except KeyError:
        known = " or ".join(f"'{word}'" if word else "blank" for word in words)
        raise LabelError(f"{where}: {column} is '{text}'; wanted is {known}.") from None
