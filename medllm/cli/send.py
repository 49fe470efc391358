"""`medllm send`: DICOM files to a PACS."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import AsJson, find_each
from medllm.cli.peers import ADDRESS, AeTitle, TlsCa, TlsCert, TlsKey, peer_at
from medllm.cli.progress import watched
from medllm.errors import NetworkError

if TYPE_CHECKING:
    from medllm.dicom.network import Sent


def send(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="DICOM files, or folders, searched through by content.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help=f"The PACS: {ADDRESS}.", show_default=False)
    ],
    ae_title: AeTitle = "MEDLLM",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Send DICOM files to a PACS, by C-STORE or STOW-RS.

    Faults that may pass are tried again. A file that is not taken is reported with the reason,
    the others go; the exit status is then 1. To send a file twice is safe.
    """
    from medllm.dicom.network import Sent, store
    from medllm.dicom.search import find_dicom

    peer = peer_at(to, ae_title, tls_ca, tls_cert, tls_key)
    found = find_each(files, find_dicom, "DICOM")
    absent = [Sent(path, None, error.code, str(error)) for path, error in found if error]
    paths = [path for path, error in found if error is None]
    left, n_taken = dict.fromkeys(paths), 0
    try:
        outcomes = chain(absent, map(_named, store(paths, peer)))
        for sent in watched(outcomes, len(found), "files"):
            left.pop(sent.path, None)
            n_taken += sent.error is None
            _tell(sent, as_json=as_json)
    except NetworkError as error:
        typer.echo(str(error), err=True)
        for path in left if as_json else ():
            _tell(Sent(path, None, error.code, str(error)), as_json=True)
    typer.echo(f"{n_taken} of {len(found)} files taken by {peer}", err=True)
    if n_taken < len(found):
        raise typer.Exit(1)


def _named(sent: Sent) -> Sent:
    """Put the file before the cause."""
    return sent if sent.error is None else replace(sent, message=f"{sent.path}: {sent.message}")


def _tell(sent: Sent, *, as_json: bool) -> None:
    if as_json:
        error = None if sent.error is None else {"code": sent.error, "message": sent.message}
        record = {
            "path": str(sent.path),
            "sop_instance_uid": sent.sop_instance_uid,
            "remark": sent.message if error is None else "",
            "error": error,
        }
        typer.echo(json.dumps(record))
    elif sent.error is None:
        typer.echo("  ".join(filter(None, [str(sent.path), "taken", sent.message])))
