"""A DICOMweb service: its client, and what goes wrong in words."""

from __future__ import annotations

import logging
import ssl
from base64 import b64encode
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from medllm.dicom.files import MAX_FILE_BYTES
from medllm.dicom.network.address import LOGIN_VARIABLE, TOKEN_VARIABLE, WebPeer
from medllm.dicom.network.faults import lost, package_missing, probed, unreachable
from medllm.dicom.network.retry import Patience
from medllm.errors import NetworkError

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient
    from requests import ConnectionError as HttpConnectionError
    from requests import PreparedRequest, Response, Session

_BUSY = frozenset({408, 429, 502, 503, 504})
_NO_SERVICE = frozenset({404, 405, 410})

T = TypeVar("T")


def web_client(peer: WebPeer, patience: Patience) -> DICOMwebClient:
    """Make the client of a service; nothing is asked yet.

    Args:
        peer: The service.
        patience: Bounds the waiting for one answer; the client itself tries nothing again.

    Returns:
        The client, which keeps its connection.

    Raises:
        NetworkError: dicomweb-client is not installed.
    """
    try:
        from dicomweb_client import DICOMwebClient
    except ImportError:
        raise package_missing("dicomweb-client") from None
    log = logging.getLogger("dicomweb_client")  # addresses of queries can name a patient
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)
    client = DICOMwebClient(
        peer.url,
        _session(peer),
        timeout=patience.answer_s,
        permissive_uid=True,  # checked by is_uid
        chunk_size=2 * MAX_FILE_BYTES,  # no chunked requests, which some servers do not take
    )
    client.set_http_retry_params(retry=False)
    return client


def asked(peer: WebPeer, ask: Callable[[], T]) -> T:
    """Ask a service something, and put what goes wrong into words.

    The client's own words are left out: they quote addresses, which hold what was asked for.

    Args:
        peer: The service.
        ask: A call of its client.

    Returns:
        The answer.

    Raises:
        NetworkError: There is none: `peer-away`, `peer-busy`, `connection-lost`, `tls-failed`,
            `not-authorised`, `no-service`, `bad-answer`, or `refused` by another status; the
            cause is then the `requests.HTTPError`.
    """
    import requests

    try:
        return ask()
    except requests.HTTPError as error:
        raise _status(peer, int(getattr(error.response, "status_code", 0))) from error
    except requests.ConnectionError as error:
        raise _connection(peer, error) from None
    except (requests.Timeout, requests.exceptions.ChunkedEncodingError):
        raise lost(peer) from None
    except Exception as error:  # noqa: BLE001  turned into one kind, never passed over
        raise NetworkError(
            f"{peer} gave an answer that is no DICOMweb ({type(error).__name__}); check that the "
            "address is the root of a DICOMweb service.",
            code="bad-answer",
        ) from None


def _session(peer: WebPeer) -> Session:
    import requests

    class CheckedSession(requests.Session):
        """Lets no certificates of the environment take the place of those that were given."""

        def merge_environment_settings(
            self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
        ) -> Any:
            given = self.verify if verify is None else verify
            return super().merge_environment_settings(url, proxies, stream, given, cert)

    def bare_type(response: Response, **_: object) -> None:
        # The client reads an answer only where its type stands alone; some servers add a charset.
        kind = response.headers.get("Content-Type", "")
        if kind.startswith(("application/dicom+", "application/json", "application/xml")):
            response.headers["Content-Type"] = kind.partition(";")[0].strip()

    session = CheckedSession()
    session.hooks["response"].append(bare_type)
    session.headers["Accept"] = "application/dicom+json"  # else STOW-RS may answer in XML
    # To pack pixels costs Orthanc 0.6 s for 2 MB, twenty times what sending them as they are does.
    session.headers["Accept-Encoding"] = "identity"
    if peer.tls.ca is not None:
        session.verify = str(peer.tls.ca)
    if peer.tls.cert is not None:
        cert, key = str(peer.tls.cert), peer.tls.key
        session.cert = cert if key is None else (cert, str(key))

    if (authorization := _authorization(peer)) is not None:

        def authorised(request: PreparedRequest) -> PreparedRequest:
            request.headers["Authorization"] = authorization
            return request

        session.auth = authorised  # unlike a plain header, it is not sent on to another host
    return session


def _authorization(peer: WebPeer) -> str | None:
    if peer.token is not None:
        return f"Bearer {peer.token}"
    if peer.login is not None:
        return f"Basic {b64encode(peer.login.encode()).decode()}"
    return None


def _status(peer: WebPeer, status: int) -> NetworkError:
    known = status in HTTPStatus.__members__.values()
    shown = f"{status} {HTTPStatus(status).phrase}" if known else str(status)
    if status in (401, 403):
        return NetworkError(
            f"{peer} answered {shown}; set the environment variable {TOKEN_VARIABLE}, or "
            f"{LOGIN_VARIABLE}=user:password, to credentials that may do this.",
            code="not-authorised",
        )
    if status in _BUSY:
        return NetworkError(f"{peer} answered {shown}; try again later.", code="peer-busy")
    if status in _NO_SERVICE:
        return NetworkError(
            f"{peer} answered {shown}; check that the address is the root of a DICOMweb service.",
            code="no-service",
        )
    return NetworkError(
        f"{peer} refused it: {shown}; its log says more.",
        code="refused",
    )


def _connection(peer: WebPeer, error: HttpConnectionError) -> NetworkError:
    """Find the fault below the layers of requests and urllib3."""
    import requests
    from urllib3.exceptions import NewConnectionError

    below: list[BaseException] = [error]
    while cause := below[-1].__cause__ or below[-1].__context__:
        below.append(cause)
    for cause in below:
        if isinstance(cause, ssl.SSLError):
            return unreachable(peer, cause)
    if isinstance(error, requests.ConnectTimeout):
        return unreachable(peer, TimeoutError())
    if any(isinstance(cause, NewConnectionError) for cause in below):
        plain = [cause for cause in below if isinstance(cause, OSError) and cause.strerror]
        return unreachable(peer, plain[-1] if plain else OSError())
    return _tls_fault(peer) or lost(peer)


def _tls_fault(peer: WebPeer) -> NetworkError | None:
    """Look whether a server hung up because it wants a certificate of ours."""
    parts = urlsplit(peer.url)
    if parts.scheme != "https" or peer.tls.cert is not None:
        return None
    fault = probed(peer, str(parts.hostname), parts.port or 443, peer.tls, 5.0)
    return fault if fault is not None and fault.code == "tls-failed" else None
