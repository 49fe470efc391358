"""`medllm inspect`: what a file is and how its pixels are read, without identity."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import typer

from medllm.cli.inputs import Accept, AsJson, Inputs, Polarity, read_each, tell_error
from medllm.errors import MedllmError

if TYPE_CHECKING:
    from medllm.dicom import Radiograph


def inspect(
    inputs: Inputs,
    accept: Accept = None,
    polarity: Polarity = "auto",
    as_json: AsJson = False,
) -> None:
    """Show the header without identity, the pixel pipeline, and the gates passed and failed."""
    failed = False
    for path, read in read_each(inputs, accept, polarity):
        try:
            scan = read()
        except MedllmError as error:
            failed = True
            if as_json:
                code = {"code": error.code, "message": str(error)}
                typer.echo(json.dumps({"path": str(path), "error": code}))
            else:
                tell_error(path, error)
            continue
        typer.echo(json.dumps(_record(scan)) if as_json else _page(scan))
    if failed:
        raise typer.Exit(1)


def _record(scan: Radiograph) -> dict[str, Any]:
    record: dict[str, Any] = {
        field.name: getattr(scan, field.name)
        for field in dataclasses.fields(scan)
        if field.name not in ("pixels", "path", "pipeline", "gates")
    }
    return {
        "path": str(scan.path),
        "rows": scan.rows,
        "columns": scan.columns,
        **record,
        "pipeline": [dataclasses.asdict(step) for step in scan.pipeline],
        "gates": [dataclasses.asdict(gate) for gate in scan.gates],
        "error": None,
    }


def _page(scan: Radiograph) -> str:
    record = _record(scan)
    lines = [record.pop("path")]
    pipeline, gates = record.pop("pipeline"), record.pop("gates")
    record.pop("error")
    lines += [
        f"  {name.replace('_', ' '):<22}{value}"
        for name, value in record.items()
        if value is not None
    ]
    lines.append("  pixel pipeline")
    lines += [f"    {step['name']:<20}{step['detail']}" for step in pipeline]
    lines.append("  gates")
    for gate in sorted(gates, key=lambda gate: gate["passed"]):
        word = "passed" if gate["passed"] else f"{gate['severity'].upper()}: {gate['message']}"
        lines.append(f"    {gate['code']:<24}{word}")
    return "\n".join(lines)
