"""`medllm listen`: a DICOM node that explains what it is sent."""

from __future__ import annotations

import ipaddress
import logging
import signal
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medllm.cli.explain import require_findings, write_report
from medllm.cli.inputs import (
    METHOD_NAMES,
    Findings,
    ModelSource,
    Prevalence,
    chosen_names,
    load_for,
)
from medllm.cli.peers import ADDRESS, TlsKey, peer_at
from medllm.errors import DicomError, NetworkError

if TYPE_CHECKING:
    from medllm.dicom import Radiograph
    from medllm.dicom.network import Peer
    from medllm.models import Model

# Of a study that nobody looked through, what the models are not for. Who gives such an image to
# `medllm explain` has asked for it, and gets the report with a warning.
_PASSED_OVER = frozenset(
    {"not-a-radiograph", "not-human", "for-processing", "lateral-view", "not-chest"}
)


def listen(
    inbox: Annotated[
        Path,
        typer.Option(
            metavar="DIR", file_okay=False, help="Folder that images and results are queued in."
        ),
    ] = Path("inbox"),
    send_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"Where results go: {ADDRESS}. They stay in DIR/done when left out.",
            show_default=False,
        ),
    ] = None,
    model: ModelSource = None,
    finding: Findings = None,
    prevalence: Prevalence = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Attribution method; several, separated by commas, stand beside each other. Of: "
            f"{METHOD_NAMES}.",
        ),
    ] = "integrated-gradients",
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than loopback wants --allow.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 11112,
    ae_title: Annotated[
        str,
        typer.Option(metavar="AE", help="Our own AE title; who calls another is turned away."),
    ] = "MEDLLM",
    allow: Annotated[
        str,
        typer.Option(
            metavar="AE,...",
            help="AE titles of those that may send; everybody on this machine when left out.",
            show_default=False,
        ),
    ] = "",
    quiet_seconds: Annotated[
        float,
        typer.Option(min=0, help="A study is complete when no image of it came for so long."),
    ] = 30.0,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Certificates that the PACS's is checked against, and with --tls-cert those of "
            "all who send, PEM.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Our certificate, PEM; the port then takes TLS only.",
            show_default=False,
        ),
    ] = None,
    tls_key: TlsKey = None,
) -> None:
    """Take images in over DICOM (C-STORE), explain each complete study, send the results back.

    Of each image the findings are explained that `medllm explain` would choose, or those that
    --finding names; a model that is not calibrated wants them named.

    What was acknowledged is on disk: after a kill, start it again with the same --inbox, and
    nothing is lost or explained twice. One line per event goes to stderr, without identity.
    """
    from medllm.dicom.network.address import Tls
    from medllm.dicom.network.inbox import Inbox
    from medllm.dicom.network.node import Node, Pace
    from medllm.dicom.network.reception import Access
    from medllm.dicom.silence import in_silence
    from medllm.explanation import METHODS

    methods = chosen_names(method, METHODS, "--method")
    allowed = _allowed(allow, host)
    tls = None if tls_cert is None else Tls(tls_ca, tls_cert, tls_key)
    peer = None if send_to is None else peer_at(send_to, ae_title, tls_ca, tls_cert, tls_key)
    _require_libraries()
    _log_to_stderr()
    loaded = load_for(model, prevalence)
    require_findings(loaded, finding or [])
    formats = ["html", "json", "dicom"] if peer is None else ["dicom"]
    with Inbox(inbox) as box:
        node = Node(
            box,
            _explainer(loaded, formats, methods, finding),
            None if peer is None else _sender(peer),
            access=Access(host, port, ae_title, allowed, tls),
            pace=Pace(quiet_s=quiet_seconds),
        )
        _stop_on_signals(node.stop)
        with in_silence():
            node.run()


def _allowed(titles: str, host: str) -> list[str]:
    allowed = [title.strip() for title in titles.split(",") if title.strip()]
    if not allowed and not _is_loopback(host):
        raise typer.BadParameter(
            f"{host} can be reached from other machines; name those that may send.",
            param_hint="--allow",
        )
    return allowed


def _require_libraries() -> None:
    """Say what is missing before images are taken, and not with each of them."""
    for package in ("pynetdicom", "highdicom", "weasyprint"):
        if find_spec(package) is None:
            raise NetworkError(
                f"listening needs {package}, which is not installed: pip install 'medllm[clinic]'.",
                code="package-missing",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sender(peer: Peer) -> Callable[[Sequence[Path]], None]:
    from medllm.dicom.network import Patience, store

    def send(files: Sequence[Path]) -> None:
        # One try: the node itself comes back to what was not taken.
        for sent in store(files, peer, patience=Patience(tries=1)):
            if sent.error is not None:
                raise NetworkError(sent.message, code=sent.error)

    return send


def _explainer(
    model: Model, formats: list[str], methods: Sequence[str], findings: list[str] | None = None
) -> Callable[[Path, Path], None]:
    from medllm.dicom.network.journal import tell

    def explain(image: Path, results: Path) -> None:
        scan = _read(image)
        _, refused = write_report(model, scan, results, formats, findings, methods)
        for reason in refused:
            tell("not-explained", study=image.parent.name, image=image.stem, cause=reason)

    return explain


def _read(image: Path) -> Radiograph:
    from medllm.dicom import read_radiograph
    from medllm.dicom.network.node import PassedOverError

    try:
        scan = read_radiograph(image)
    except DicomError as error:
        if error.code in _PASSED_OVER:
            raise PassedOverError(str(error), code=error.code) from None
        raise
    for gate in scan.warnings:
        if gate.code in _PASSED_OVER:
            raise PassedOverError(gate.message, code=gate.code)
    return scan


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S"))
    handler.formatter.converter = time.gmtime  # type: ignore[union-attr]
    log = logging.getLogger("medllm.dicom.network.journal")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [handler]


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """Stop in order at the first signal; at the second, at once, which the inbox stands."""

    def on_signal(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
