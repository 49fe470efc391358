from __future__ import annotations

import logging

import pytest

from medllm.dicom.network import DicomPeer, Tls, WebPeer, parse_peer
from medllm.errors import NetworkError

SECRET = "s3cret-word"  # noqa: S105  opens nothing


@pytest.mark.parametrize(
    ("url", "peer"),
    [
        ("dicom://PACS@host.example:4242", DicomPeer("host.example", 4242, "PACS")),
        ("dicom://PACS@10.0.0.1", DicomPeer("10.0.0.1", 104, "PACS")),
        ("dicoms://PACS@10.0.0.1", DicomPeer("10.0.0.1", 2762, "PACS", tls=Tls())),
        ("dicom://PACS@[::1]:11112", DicomPeer("::1", 11112, "PACS")),
        ("dicom://MY%20PACS@h:104", DicomPeer("h", 104, "MY PACS")),
        ("dicom://A%40B%25%2F%3A%23@h:104", DicomPeer("h", 104, "A@B%/:#")),
        ("http://h:8042/dicom-web/", WebPeer("http://h:8042/dicom-web")),
        ("https://h/rs", WebPeer("https://h/rs")),
    ],
)
def test_an_address_is_read_and_written_alike(url, peer, monkeypatch):
    monkeypatch.delenv("MEDLLM_DICOMWEB_TOKEN", raising=False)
    monkeypatch.delenv("MEDLLM_DICOMWEB_LOGIN", raising=False)
    assert parse_peer(url) == peer
    assert parse_peer(str(peer)) == peer


@pytest.mark.parametrize(
    "url",
    [
        "",
        "PACS@host:104",
        "ftp://PACS@host",
        "dicom://host:104",
        "dicom://PACS@host:port",
        "dicom://PACS@host:99999",
        "dicom://SEVENTEENLETTERSX@host",
        "dicom://PA\\CS@host",
        "dicom://PA%5CCS@host",
        "dicom://PACS%0A@host",
        "http://",
        "http://h/dicom-web?limit=1",
    ],
)
def test_another_form_is_refused(url):
    with pytest.raises(NetworkError, match="wanted is dicom://AE_TITLE@host:port") as raised:
        parse_peer(url)
    assert raised.value.code == "bad-address"


@pytest.mark.parametrize("scheme", ["https", "dicom", "ftp"])
def test_credentials_in_an_address_are_refused_and_not_repeated(scheme):
    with pytest.raises(NetworkError) as raised:
        parse_peer(f"{scheme}://user:{SECRET}@host/dicom-web")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value", "header"),
    [
        ("MEDLLM_DICOMWEB_TOKEN", SECRET, f"Bearer {SECRET}"),
        # RFC 7617, section 2, with UTF-8.
        ("MEDLLM_DICOMWEB_LOGIN", "test:123£", "Basic dGVzdDoxMjPCow=="),
    ],
)
def test_credentials_of_the_environment_are_sent_and_shown_nowhere(
    site, monkeypatch, caplog, variable, value, header
):
    from medllm.dicom.network import find_study

    monkeypatch.setenv(variable, value)
    made = site()
    peer = parse_peer(str(made.peer))
    made.lay(401)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(NetworkError, match="401 Unauthorized.*MEDLLM_DICOMWEB_TOKEN") as raised,
    ):
        find_study(peer, study_instance_uid="1.2.3")
    assert raised.value.code == "not-authorised"
    ((_, _, headers),) = made.asked  # not tried again
    assert headers["Authorization"] == header
    for shown in (caplog.text, str(raised.value), repr(peer), str(peer)):
        assert value not in shown
        assert header not in shown


def test_credentials_are_not_sent_on_to_another_host(site, monkeypatch):
    from medllm.dicom.network import find_study

    monkeypatch.setenv("MEDLLM_DICOMWEB_TOKEN", SECRET)
    here, there = site(), site()
    here.lay(302, Location=str(there.peer).replace("127.0.0.1", "localhost") + "/elsewhere")
    there.lay(404)
    with pytest.raises(NetworkError):
        find_study(parse_peer(str(here.peer)), study_instance_uid="1.2.3")
    ((_, _, headers),) = there.asked
    assert "Authorization" not in headers
