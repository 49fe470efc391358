"""What the commands that speak to a PACS share: their options, and how the two ends are named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medllm.dicom.network import Peer

ADDRESS = (
    "dicom://AE_TITLE@host:port, dicoms:// for TLS, or the http(s):// root of a DICOMweb service"
)

AeTitle = Annotated[
    str,
    typer.Option(
        "--ae-title", metavar="AE", help="Our own AE title, which the PACS may have to know."
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Certificates to check the PACS's against, PEM; the system's when left out.",
        show_default=False,
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Our certificate, PEM: for a PACS that asks for one, and to fetch from dicoms://.",
        show_default=False,
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Its private key, PEM, if it is not in the same file.",
        show_default=False,
    ),
]


def peer_at(
    url: str, ae_title: str, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None
) -> Peer:
    """Read a PACS's address and the options of the connection."""
    from medllm.dicom.network import Tls, parse_peer

    return parse_peer(url, calling_ae_title=ae_title, tls=Tls(tls_ca, tls_cert, tls_key))
