"""`medllm demo`: a phantom from file to report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medllm.cli.explain import write_report

# The first whose opacity the bundled model calls. Of the first ten it calls seven, and names the
# region of six; how often a map is kept stands in docs/concepts/explanations.md.
_SEED = 1


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Folder of the demo.")
    ] = Path("out/demo"),
) -> None:
    """Make a synthetic radiograph with one opacity, classify it, explain it, write the report."""
    from medllm.dicom import read_radiograph
    from medllm.explanation import DEFAULT_METHOD
    from medllm.models import load_model
    from medllm.phantom import Lesion, make_phantom, write_dicom

    lesion = Lesion("lung_opacity", side="right", zone="lower", strength=1.0, size=0.9)
    phantom = make_phantom(_SEED, size=1024, lesions=[lesion], view="PA", age_group="adult")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "phantom.dcm"
    write_dicom(phantom, file)
    typer.echo(f"phantom   {file}  (a lung opacity in the patient's right lower zone)")
    model = load_model(None)
    scan = read_radiograph(file)
    for answer in model.predict([scan])[0].findings:
        typer.echo(
            f"finding   {answer.finding:<14} probability {answer.probability:.2f}  {answer.call}"
        )
    written, refused = write_report(model, scan, out, ["html", "json"], None, [DEFAULT_METHOD])
    for error in refused:
        raise error
    for path in written:
        typer.echo(f"report    {path}")
    typer.echo("Open report.html in a browser. Research use only, never a diagnosis.")
