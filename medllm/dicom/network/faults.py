"""What goes wrong with a peer, in words."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from medllm.dicom.network.address import Peer, Tls
from medllm.errors import NetworkError

PACKAGES = "pip install 'medllm[clinic]'"


def unreachable(peer: Peer, error: OSError) -> NetworkError:
    """Say why no connection came about.

    Args:
        peer: The peer.
        error: What the connecting gave.

    Returns:
        The error, `tls-failed` or `peer-away`.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return NetworkError(
            f"{peer} shows a certificate that is not trusted ({error.verify_message}); give the "
            "certificate that it is signed with as --tls-ca.",
            code="tls-failed",
        )
    if isinstance(error, ssl.SSLError):
        return NetworkError(
            f"TLS with {peer} failed ({error.reason or 'no reason given'}); check that it speaks "
            "TLS, and whether it wants a certificate of ours: --tls-cert, --tls-key.",
            code="tls-failed",
        )
    return NetworkError(
        f"nobody answers at {peer} ({error.strerror or 'no answer in time'}); check host and "
        "port, that the PACS runs, and the firewall.",
        code="peer-away",
    )


def probed(peer: Peer, host: str, port: int, tls: Tls | None, wait_s: float) -> NetworkError | None:
    """Connect once more, to learn why it failed: libraries keep that back, or never see it.

    Args:
        peer: The peer.
        host: Its host.
        port: Its port.
        tls: How the connection is secured; None for a plain one.
        wait_s: Longest wait, in seconds; a few are enough.

    Returns:
        The error; None where the connection itself is sound.
    """
    wait_s = min(wait_s, 5.0)
    try:
        with socket.create_connection((host, port), timeout=wait_s) as plain:
            if tls is not None:
                _shake_hands(plain, host, tls, wait_s)
    except OSError as error:
        return unreachable(peer, error)
    return None


def _shake_hands(plain: socket.socket, host: str, tls: Tls, wait_s: float) -> None:
    # Silence is no fault of the connection: it is there.
    with (
        suppress(TimeoutError),
        tls.context().wrap_socket(plain, server_hostname=host) as secure,
    ):
        # In TLS 1.3 the peer judges our certificate after our side has finished.
        secure.settimeout(min(wait_s, 1.0))
        secure.recv(1)


def lost(peer: Peer) -> NetworkError:
    """Say that a peer hung up, or left a request without an answer.

    Args:
        peer: The peer.

    Returns:
        The error, `connection-lost`.
    """
    return NetworkError(
        f"{peer} hung up, or did not answer in time; what was done until then is kept: run the "
        "command again.",
        code="connection-lost",
    )


def package_missing(name: str) -> NetworkError:
    """Say that an optional package is not there, and how to get it.

    Args:
        name: The package.

    Returns:
        The error, `package-missing`.
    """
    return NetworkError(
        f"this needs {name}, which is not installed: {PACKAGES}.", code="package-missing"
    )
