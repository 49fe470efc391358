"""To and from a PACS: DICOM's own protocol and DICOMweb."""

from __future__ import annotations

from medllm.dicom.network.address import DicomPeer, Peer, Tls, WebPeer, parse_peer
from medllm.dicom.network.fetch import PORT, fetch, find_study
from medllm.dicom.network.retry import Patience
from medllm.dicom.network.sent import Sent
from medllm.dicom.network.shelf import Fetched, Instance, Study
from medllm.dicom.network.store import store

__all__ = [
    "PORT",
    "DicomPeer",
    "Fetched",
    "Instance",
    "Patience",
    "Peer",
    "Sent",
    "Study",
    "Tls",
    "WebPeer",
    "fetch",
    "find_study",
    "parse_peer",
    "store",
]
