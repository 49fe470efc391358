"""`medllm fetch`: a study from a PACS to disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import AsJson
from medllm.cli.peers import ADDRESS, AeTitle, TlsCa, TlsCert, TlsKey, peer_at
from medllm.cli.progress import watched
from medllm.errors import NetworkError

if TYPE_CHECKING:
    from medllm.dicom.network import Fetched, Peer, Study


def fetch(
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help=f"The PACS: {ADDRESS}.", show_default=False)
    ],
    study: Annotated[
        str | None,
        typer.Option(metavar="UID", help="Study Instance UID of the study.", show_default=False),
    ] = None,
    accession: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Or its accession number.", show_default=False),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", file_okay=False, help="Folder of the files, UID.dcm each."),
    ] = Path("study"),
    ae_title: AeTitle = "MEDLLM",
    port: Annotated[
        int,
        typer.Option(
            min=1, max=65535, help="Where a PACS that speaks DICOM sends to us; it has to know it."
        ),
    ] = 11112,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a study from a PACS, by C-FIND and C-MOVE or QIDO-RS and WADO-RS.

    What lies in DIR already is not fetched again: after a fault, the same command goes on.
    """
    from medllm.dicom.network import fetch as fetch_objects

    peer = peer_at(source, ae_title, tls_ca, tls_cert, tls_key)
    found = _found(peer, study, accession)
    fault, n_there, n_new = None, 0, 0
    total = len(found.instances)
    try:
        rows = map(_named, fetch_objects(peer, found, out, port=port))
        for fetched in watched(rows, total, "objects"):
            n_there += fetched.error is None
            n_new += fetched.error is None and fetched.new
            _tell(fetched, as_json=as_json)
    except NetworkError as error:
        fault = error
    if found.n_unnamed:
        typer.echo(f"{found.n_unnamed} more are named by what is no UID and stay there", err=True)
    typer.echo(f"{n_there} of {total} objects are in {out}, {n_new} of them new", err=True)
    if fault is not None:
        raise fault
    if n_there < total or found.n_unnamed:
        raise typer.Exit(1)


def _found(peer: Peer, study: str | None, accession: str | None) -> Study:
    from medllm.dicom.network import find_study

    if (study is None) == (accession is None):
        raise typer.BadParameter("give one of the two.", param_hint="--study or --accession")
    try:
        return find_study(peer, study_instance_uid=study, accession_number=accession)
    except ValueError as error:
        hint = "--study" if accession is None else "--accession"
        raise typer.BadParameter(str(error), param_hint=hint) from None


def _named(fetched: Fetched) -> Fetched:
    """Put the file before the cause."""
    if fetched.error is None:
        return fetched
    return replace(fetched, message=f"{fetched.path}: {fetched.message}")


def _tell(fetched: Fetched, *, as_json: bool) -> None:
    if as_json:
        error = (
            None if fetched.error is None else {"code": fetched.error, "message": fetched.message}
        )
        record = {
            "path": str(fetched.path),
            "sop_instance_uid": fetched.sop_instance_uid,
            "new": fetched.new and error is None,
            "error": error,
        }
        typer.echo(json.dumps(record))
    elif fetched.error is None:
        typer.echo(str(fetched.path))
