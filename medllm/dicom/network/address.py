"""Where a PACS is, who asks it, and how the connection is secured."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from medllm.errors import NetworkError

# Beside letters and digits, what stands in front of an @ as it is: RFC 3986 3.2.1, userinfo.
_PLAIN = "!$&'()*+,;="
# Ours, where no other is given: PACS know their peers by these.
AE_TITLE = "MEDLLM"
TOKEN_VARIABLE = "MEDLLM_DICOMWEB_TOKEN"  # noqa: S105  its name, not the token
LOGIN_VARIABLE = "MEDLLM_DICOMWEB_LOGIN"

_DICOM_PORT, _DICOM_TLS_PORT = 104, 2762  # registered for them, PS3.8 9.1.1 and PS3.15 B.1


@dataclass(frozen=True)
class Tls:
    """Files that secure a connection.

    Attributes:
        ca: Certificates that the peer's is checked against, PEM. When None, those of the system
            for a peer that we connect to; a peer that connects to us is asked for none.
        cert: Our certificate, PEM; for a peer that asks for one, and for our own server.
        key: Private key of `cert`, PEM; None where `cert` holds it.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self, *, server: bool = False) -> ssl.SSLContext:
        """Make the settings of a connection.

        The certificate of a peer that we connect to is always checked. That of a peer that
        connects to us is wanted and checked where `ca` is given, and else not asked for:
        PS3.15 B.1 leaves it to the site.

        Args:
            server: For connections that a peer opens to us.

        Returns:
            The settings.

        Raises:
            NetworkError: A file is missing or holds no such thing, or our own server has no
                certificate (`tls-failed`).
        """
        if server and self.cert is None:
            raise NetworkError(
                "a peer shall connect to us over TLS, and there is no certificate of ours; give it "
                "as --tls-cert, and its private key as --tls-key.",
                code="tls-failed",
            )
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        try:
            context = ssl.create_default_context(purpose, cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(file) for file in (self.ca, self.cert, self.key) if file)
            raise NetworkError(
                f"TLS cannot be set up with {files} ({_reason(error)}); wanted are readable PEM "
                "files, and a key that fits the certificate.",
                code="tls-failed",
            ) from None
        if server and self.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclass(frozen=True)
class DicomPeer:
    """A node that speaks DICOM's own protocol.

    Attributes:
        host: Its name or address.
        port: Its port.
        ae_title: Its application entity title, by which it is called.
        calling_ae_title: Ours.
        tls: How the connection is secured; None for a plain one.
    """

    host: str
    port: int
    ae_title: str
    calling_ae_title: str = AE_TITLE
    tls: Tls | None = None

    def __str__(self) -> str:
        """Give the address as a user writes it."""
        scheme = "dicom" if self.tls is None else "dicoms"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{quote(self.ae_title, safe=_PLAIN)}@{host}:{self.port}"


@dataclass(frozen=True)
class WebPeer:
    """A server that speaks DICOMweb.

    Attributes:
        url: Root of its services, without credentials.
        tls: Files of the connection, for https.
        token: Bearer token.
        login: `user:password`.
    """

    url: str
    tls: Tls = Tls()
    token: str | None = field(default=None, repr=False)
    login: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Give the address as a user writes it."""
        return self.url


Peer = DicomPeer | WebPeer


def parse_peer(url: str, *, calling_ae_title: str = AE_TITLE, tls: Tls | None = None) -> Peer:
    """Read the address of a PACS.

    Args:
        url: `dicom://AE_TITLE@host:port`, `dicoms://` for TLS, or the `http://` or `https://`
            root of a DICOMweb service. A space in the title is written `%20`, an @ `%40`.
            Credentials of DICOMweb come from the environment: MEDLLM_DICOMWEB_TOKEN, or
            MEDLLM_DICOMWEB_LOGIN as `user:password`.
        calling_ae_title: Our own application entity title.
        tls: Certificates and key for `dicoms://` and `https://`; the system's when None.

    Returns:
        The peer.

    Raises:
        NetworkError: The address has another form (`bad-address`); it is not repeated in the
            message if it holds credentials.

    Example:
        >>> parse_peer("dicom://ORTHANC@127.0.0.1:4242").port
        4242
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad_address("the address is not one") from None
    if parts.scheme in ("http", "https") and parts.hostname:
        return _web_peer(parts, tls)
    if parts.scheme in ("dicom", "dicoms") and parts.hostname and parts.username:
        if parts.password is not None:
            raise _bad_address("the address holds a password, which DICOM has no place for")
        ae_title = unquote(parts.username)
        _require_ae_title(ae_title)
        _require_ae_title(calling_ae_title)
        secure = parts.scheme == "dicoms"
        return DicomPeer(
            parts.hostname,
            port or (_DICOM_TLS_PORT if secure else _DICOM_PORT),
            ae_title,
            calling_ae_title,
            (tls or Tls()) if secure else None,
        )
    shown = f"'{url}'" if "@" not in url else "the address"
    raise _bad_address(f"{shown} is no address of a PACS")


def _web_peer(parts: SplitResult, tls: Tls | None) -> WebPeer:
    if "@" in parts.netloc:
        raise _bad_address(
            "the address holds credentials, which lists of processes and logs show to others; "
            f"put them into the environment variable {LOGIN_VARIABLE}=user:password",
        )
    if parts.query or parts.fragment:
        raise _bad_address("the root of a DICOMweb service has neither '?' nor '#'")
    root = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    token, login = os.environ.get(TOKEN_VARIABLE), os.environ.get(LOGIN_VARIABLE)
    if login and ":" not in login:
        raise _bad_address(f"{LOGIN_VARIABLE} is not of the form user:password")
    return WebPeer(root, tls or Tls(), token or None, login or None)


def _require_ae_title(title: str) -> None:
    # PS3.5 6.2, Application Entity: 16 characters, no backslash, no control character.
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title) or not title.strip():
        raise _bad_address(
            f"{title!r} is no application entity title: at most 16 ASCII characters without "
            "backslash"
        )


def _bad_address(found: str) -> NetworkError:
    return NetworkError(
        f"{found}; wanted is dicom://AE_TITLE@host:port, dicoms:// for TLS, or the http(s):// "
        "root of a DICOMweb service.",
        code="bad-address",
    )


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
