"""What the commands that take images share: their arguments, and one bad input among many."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medllm.errors import DicomError, MedllmError, ReportError, did_you_mean

if TYPE_CHECKING:
    from medllm.dicom import Radiograph
    from medllm.models import Model

# Written out, since help must not wait for the libraries; a test holds them to what there is.
METHOD_NAMES = (
    "integrated-gradients, gradient-x-activation, grad-cam, gradient-attention, "
    "attention-rollout, pixel-integrated-gradients, smooth-integrated-gradients, occlusion, "
    "patch-ablation, rise, patch-shapley, zone-shapley"
)
FORMAT_NAMES = "html, json, pdf, pdf-letter, dicom, fhir"


def as_key(finding: str) -> str:
    """Write a finding as its key is written: in lower case, with underscores."""
    return re.sub(r"[\s_-]+", "_", finding.strip().lower())


def _as_keys(given: list[str] | None) -> list[str] | None:
    """Take findings apart at their commas; one that is empty is wrong usage."""
    keys = [as_key(name) for one in given or () for name in one.split(",") if name.strip()]
    if given and not keys:
        raise typer.BadParameter(f"'{given[0]}' names no finding.")
    return keys or None


Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="DICOM, PNG or JPEG files, or folders, searched through by content.",
        show_default=False,
    ),
]
ModelSource = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="M",
        help="Checkpoint folder or hub name (owner/name); the bundled reference when left out.",
        show_default=False,
    ),
]
Findings = Annotated[
    list[str] | None,
    typer.Option(
        "--finding",
        metavar="F",
        callback=_as_keys,
        help="Finding, such as pneumonia; several separated by commas. 'medllm models show' lists "
        "a model's.",
        show_default=False,
    ),
]
Views = Annotated[
    list[str] | None,
    typer.Option(
        "--view",
        metavar="V",
        help="View position to keep, such as PA; may be repeated. PA, AP and unknown ones "
        "when left out.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="S",
        help="Part: train, validation or test; of the official split where there is one, else of "
        "80, 10 and 10% of the patients, as 'medllm train' draws them by default from this data "
        "set alone. All when left out.",
        show_default=False,
    ),
]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Split to take instead: CSV of dataset, patient_id, split. For a model that was "
        "trained otherwise, give the split.csv that its training wrote.",
        show_default=False,
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CODE",
        help="Score an image in spite of this gate, such as for-processing; may be repeated. "
        "'medllm inspect' lists an image's gates.",
        show_default=False,
    ),
]
Polarity = Annotated[
    Literal["auto", "normal", "inverted"],
    typer.Option(help="Override a polarity that the header states wrongly."),
]
Prevalence = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        help="Share of images with the finding where the images are from, above 0 and below 1; "
        "what the model was calibrated for when left out. It moves the probability, not the call.",
        show_default=False,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What is known of the patient, told to a vision-language model of others before each "
        "question; of every radiograph that is named. It stands in each report: name nobody.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]


def load_for(source: str | None, prevalence: float | None, context: str | None = None) -> Model:
    """Load a model whose probabilities suppose a prevalence, and tell it of a patient.

    Args:
        source: Checkpoint folder or hub name; the bundled reference when None.
        prevalence: Share of positives; that of the calibration when None.
        context: What is known of the patient; nothing when None.

    Returns:
        The model.
    """
    from medllm.models import in_context, load_model

    if context is not None and not context.strip():
        raise typer.BadParameter("it is empty; leave it out.", param_hint="--context")
    if prevalence is not None and not 0 < prevalence < 1:
        raise typer.BadParameter(
            f"{prevalence} is not above 0 and below 1.", param_hint="--prevalence"
        )
    model = load_model(source)
    if context is not None:
        model = in_context(model, context)
    return model if prevalence is None else model.at_prevalence(prevalence)


def refuse_identity(scan: Radiograph, context: str) -> None:
    """Refuse a context that names the patient, for it stands in a report that shall not.

    Args:
        scan: The radiograph, whose header says who the patient is.
        context: What the model is to be told.

    Raises:
        ReportError: It holds a name or the id of the patient.
    """
    from medllm.dicom import read_identity

    identity = read_identity(scan.path)
    named = [*re.split(r"[\s^=,.]+", identity.patient_name or ""), identity.patient_id or ""]
    words = re.split(r"[^\w-]+", context.lower())
    # Initials and numbers of one or two digits are in any text.
    if any(len(name) > 2 and name.lower() in words for name in named):
        raise ReportError(
            "the context holds the name or the id of the patient, and would stand in the report; "
            "leave them out, or pass --with-identity.",
            code="identity",
        )


def read_each(
    inputs: Sequence[Path], accept: Sequence[str] | None, polarity: Any
) -> Iterator[tuple[Path, Callable[[], Radiograph]]]:
    """Find the images and show progress on stderr while they are worked through.

    Args:
        inputs: Files and folders.
        accept: Codes of gates that shall not refuse an image.
        polarity: Override of the header's.

    Yields:
        Each image's path with a call that reads it, or raises a `DicomError`; so does that of an
        input which is not there.

    Raises:
        MedllmError: No image was found, and no input is at fault.
    """
    from rich.console import Console
    from rich.progress import track

    from medllm.dicom import find_images, read_radiograph

    check_accept(accept)
    found = find_each(inputs, find_images, "DICOM, PNG or JPEG")
    console = Console(stderr=True)
    # Of one radiograph there is nothing to count, and many methods take minutes.
    alone, many = console.is_terminal and len(found) == 1, console.is_terminal and len(found) > 1
    at_work = console.status("one radiograph") if alone else contextlib.nullcontext()
    each = track(found, "radiographs", console=console, disable=not many, transient=True)
    for path, error in each:

        def read(path: Path = path, error: DicomError | None = error) -> Radiograph:
            if error is not None:
                raise error
            return read_radiograph(path, accept=accept or (), polarity=polarity)

        with at_work:
            yield path, read


def find_each(
    inputs: Sequence[Path], find: Callable[[Sequence[Path]], Iterable[Path]], kinds: str
) -> list[tuple[Path, DicomError | None]]:
    """Find the files that inputs name, in spite of an input that is not there.

    Args:
        inputs: Files and folders.
        find: Lists the files that they name.
        kinds: What it lists, in words.

    Returns:
        The files, and in its place each input that is at fault, with its error.

    Raises:
        MedllmError: No file was found, and no input is at fault.
    """
    found: list[tuple[Path, DicomError | None]] = []
    for given in inputs:
        try:
            for path in find([given]):
                found.append((path, None))
        except DicomError as error:
            found.append((given, error))
    if not found:
        raise MedllmError(
            f"no {kinds} file was found in {', '.join(map(str, inputs))}.", code="no-input"
        )
    return found


def check_accept(accept: Sequence[str] | None) -> None:
    """Refuse a code that no gate has, or whose gate cannot be accepted, as wrong usage."""
    from medllm.dicom import ACCEPTABLE

    if unknown := [code for code in accept or () if code not in ACCEPTABLE]:
        raise typer.BadParameter(
            f"'{unknown[0]}' is not one of: {', '.join(sorted(ACCEPTABLE))}.", param_hint="--accept"
        )


def chosen_names(given: str, known: Iterable[str], option: str) -> list[str]:
    """Take names apart at their commas, each once; one that is unknown is wrong usage."""
    names = list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        name = (unknown or [given])[0]
        raise typer.BadParameter(
            f"'{name}' is not one of: {', '.join(known)}.{did_you_mean(name, known)}",
            param_hint=option,
        )
    return names


def tell_error(path: Path, error: MedllmError) -> None:
    """Say on stderr why one input was not done, and which it was."""
    words = str(error)
    typer.echo(words if words.startswith(str(path)) else f"{path}: {words}", err=True)
