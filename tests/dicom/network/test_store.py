"""Sending: a real PACS, and peers that refuse, hang up, sleep, or take only a part."""

from __future__ import annotations

import logging
import time
from io import BytesIO
from threading import Timer

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    JPEG2000,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSNearLossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dsutils import encode

from medllm.dicom import read_radiograph
from medllm.dicom.network import DicomPeer, Patience, parse_peer, store
from medllm.errors import NetworkError

DX, CR = DigitalXRayImageStorageForPresentation, ComputedRadiographyImageStorage


@pytest.mark.integration
@pytest.mark.parametrize("road", ["dicom_url", "web_url"])
def test_a_pacs_holds_what_was_sent_and_once(orthanc, study, uids, road):
    peer = parse_peer(getattr(orthanc, road))
    for _ in range(2):
        sent = list(store(study, peer))
        assert [(one.path, one.sop_instance_uid) for one in sent] == [
            *zip(study, uids, strict=True)
        ]
        assert [(one.error, one.message) for one in sent] == [(None, "")] * 3
        assert orthanc.instances() == set(uids)
    found = orthanc.ask("/dicom-web/studies?00080050=ACC-7391")
    assert found[0]["0020000D"]["Value"] == [pydicom.dcmread(study[0]).StudyInstanceUID]
    for instance in orthanc.ask("/instances?expand"):
        syntax = orthanc.ask(f"/instances/{instance['ID']}/header?simplify")["TransferSyntaxUID"]
        is_j2k = instance["MainDicomTags"]["SOPInstanceUID"] == uids[2]
        assert syntax == (JPEG2000Lossless if is_j2k else ExplicitVRLittleEndian)


@pytest.mark.integration
def test_nothing_of_the_patient_is_logged(orthanc, study, caplog):
    with caplog.at_level(logging.INFO):  # what --verbose shows
        for url in (orthanc.dicom_url, orthanc.web_url):
            assert len([*store(study, parse_peer(url))]) == 3
    assert "PLANTED" not in caplog.text
    assert "PHANTOM" not in caplog.text
    assert "ACC-7391" not in caplog.text


def test_objects_arrive_as_they_are_stored(node, study):
    made = node()
    assert all(one.error is None for one in store(study, made.peer))
    for got, file in zip(made.taken, study, strict=True):
        wanted = pydicom.dcmread(file)
        assert got.file_meta.TransferSyntaxUID == wanted.file_meta.TransferSyntaxUID
        assert got == wanted
        assert got.PixelData == wanted.PixelData
    assert made.counts["associations"] == 1


def test_a_peer_that_decodes_nothing_gets_the_same_pixels_without_compression(node, study):
    made = node(contexts=[(DX, ImplicitVRLittleEndian), (CR, ImplicitVRLittleEndian)])
    sent = list(store(study, made.peer))
    assert [one.error for one in sent] == [None] * 3
    assert [bool(one.message) for one in sent] == [False, False, True]
    assert "JPEG 2000" in sent[2].message
    for got, file in zip(made.taken, study, strict=True):
        wanted = pydicom.dcmread(file)
        assert got.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert got.SOPInstanceUID == wanted.SOPInstanceUID
        assert np.array_equal(got.pixel_array, wanted.pixel_array)
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
                        "PixelRepresentation", "PhotometricInterpretation"):  # fmt: skip
            assert got[keyword].value == wanted[keyword].value


def _compressed(dataset, syntax):
    """Compress a radiograph of 12 bits; as JPEG Baseline it has 8."""
    if syntax != JPEGBaseline8Bit:
        options = {JPEG2000: {"j2k_cr": [4]}, JPEGLSNearLossless: {"jls_error": 3}}
        dataset.compress(syntax, generate_instance_uid=False, **options.get(syntax, {}))
        return
    stream = BytesIO()
    Image.fromarray((dataset.pixel_array >> 4).astype(np.uint8)).save(stream, "JPEG", quality=50)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.file_meta.TransferSyntaxUID = syntax


@pytest.mark.parametrize(
    ("syntax", "stated", "told"),
    [
        (JPEGBaseline8Bit, None, "01"),
        (JPEGBaseline8Bit, "00", "01"),
        (JPEGLSNearLossless, None, "01"),
        (JPEG2000, None, "01"),
        (JPEG2000, "00", "00"),
        (JPEG2000Lossless, None, None),
        (JPEG2000Lossless, "01", "01"),
    ],
)
def test_what_was_lost_is_told_where_the_encoding_told_it_alone(
    node, study, tmp_path, syntax, stated, told
):
    """PS3.3 C.7.6.1.1.5: an image that was compressed with loss once says so ever after."""
    dataset = pydicom.dcmread(study[1])
    _compressed(dataset, syntax)
    del dataset.LossyImageCompression
    if stated is not None:
        dataset.LossyImageCompression = stated
    dataset.save_as(tmp_path / "a.dcm")
    made = node(contexts=[(CR, ImplicitVRLittleEndian)])
    (sent,) = store([tmp_path / "a.dcm"], made.peer)
    assert sent.error is None, sent.message
    (got,) = made.taken
    assert got.get("LossyImageCompression") == told
    got.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    before, after = (read_radiograph(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    assert np.array_equal(after.pixels, before.pixels)
    assert [gate.code for gate in after.warnings] == [gate.code for gate in before.warnings]
    assert ("lossy" in {gate.code for gate in after.warnings}) == (told == "01")


def test_what_the_peer_takes_in_no_encoding_is_told_with_the_reason(node, study, tmp_path):
    cut_off = pydicom.dcmread(study[2])
    cut_off.PixelData = cut_off.PixelData[:400]
    cut_off.save_as(tmp_path / "cut.dcm")
    made = node(contexts=[(DX, ImplicitVRLittleEndian)])
    dx, cr, cut = store([*study[:2], tmp_path / "cut.dcm"], made.peer)
    assert dx.error is None
    assert cr.error == cut.error == "not-accepted"
    assert "Computed Radiography Image Storage" in cr.message
    assert "JPEG 2000" in cut.message
    assert len(made.taken) == 1


def test_a_peer_that_takes_none_of_the_objects_is_told_per_file(node, study):
    made = node(contexts=[("1.2.840.10008.1.1", ImplicitVRLittleEndian)])
    assert [one.error for one in store(study, made.peer)] == ["not-accepted"] * 3


def test_some_are_taken_and_the_refused_keep_the_status_in_words(node, study):
    statuses = {DX: 0xA700, CR: 0xB000}
    made = node(lambda _, event: statuses[event.request.AffectedSOPClassUID])
    dx, cr, j2k = store(study, made.peer)
    assert (dx.error, j2k.error, cr.error) == ("refused", "refused", None)
    assert "0xA700" in dx.message
    assert "Out of Resources" in dx.message
    assert "0xB000" in cr.message
    assert made.counts["store"] == 3  # a refusal is not tried again


def test_an_association_dropped_midway_is_taken_up_where_it_ended(node, study, quick):
    def abort_each_second(made, event):
        if made.counts["store"] % 2 == 0:
            event.assoc.abort()
        return 0x0000

    made = node(abort_each_second)
    sent = list(store([*study, *study], made.peer, patience=quick))
    assert [one.error for one in sent] == [None] * 6
    assert [one.path for one in sent] == [*study, *study]
    assert made.counts["associations"] > 1


def test_a_peer_that_hangs_up_while_a_file_is_encoded_does_not_hold_us_for_ever(
    node, study, quick, monkeypatch
):
    """pynetdicom's own request would wait without end for a thread that has ended."""

    def abort_after_the_answer(_, event):
        Timer(0.1, event.assoc.abort).start()
        return 0x0000

    def slow_encode(*arguments):
        time.sleep(0.3)
        return encode(*arguments)

    monkeypatch.setattr("pynetdicom.association.encode", slow_encode)
    made = node(abort_after_the_answer)
    assert [one.error for one in store(study, made.peer, patience=quick)] == [None] * 3
    assert made.counts["associations"] >= 3  # on a busy machine an abort can overtake its answer


def test_a_file_that_the_peer_cannot_bear_does_not_stop_the_others(node, study, uids, quick):
    def abort_at_cr(_, event):
        if event.request.AffectedSOPInstanceUID == uids[1]:
            event.assoc.abort()
        return 0x0000

    made = node(abort_at_cr)
    sent = list(store(study, made.peer, patience=quick))
    assert [one.error for one in sent] == [None, "connection-lost", None]
    assert made.counts["store"] == 2 + quick.tries


def test_a_peer_that_drops_everything_is_given_up_soon(node, study, quick):
    made = node(lambda _, event: event.assoc.abort() or 0x0000)
    sending = store(study * 5, made.peer, patience=quick)
    assert next(sending).error == "connection-lost"
    with pytest.raises(NetworkError, match="hung up") as raised:
        next(sending)
    assert raised.value.code == "connection-lost"
    assert made.counts["store"] == 2 * quick.tries


def test_an_answer_that_does_not_come_is_waited_for_within_bounds(node, study):
    made = node(lambda *_: time.sleep(3) or 0x0000)
    began = time.monotonic()
    with pytest.raises(NetworkError) as raised:
        list(store(study[:1] * 2, made.peer, patience=Patience(1, 0, answer_s=0.3)))
    assert raised.value.code == "connection-lost"
    assert time.monotonic() - began < 6


def test_a_pacs_that_is_away_is_told_and_tried_again(study, free_port, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("medllm.dicom.network.retry.time.sleep", waits.append)
    peer = DicomPeer("127.0.0.1", free_port(), "PACS")
    with pytest.raises(NetworkError, match="nobody answers at dicom://PACS@127.0.0.1") as raised:
        list(store(study, peer))
    assert raised.value.code == "peer-away"
    assert "Connection refused" in str(raised.value)
    assert [wait for wait in waits if wait >= 1] == [1, 2, 4]


def test_a_wrong_ae_title_is_told_in_words_and_not_tried_again(node, study, quick):
    made = node(require_called_aet=True)
    peer = DicomPeer("127.0.0.1", made.peer.port, "OTHER")
    with pytest.raises(NetworkError, match="Called AE title not recognised") as raised:
        list(store(study, peer, patience=quick))
    assert raised.value.code == "association-refused"
    made = node(require_calling_aet=["SOMEBODY"])
    with pytest.raises(NetworkError, match="Calling AE title not recognised.*'MEDLLM'"):
        list(store(study, made.peer, patience=quick))


def test_a_busy_peer_is_tried_again(node, study, quick):
    tries = []
    made = node(maximum_associations=1, handlers=[(evt.EVT_REJECTED, tries.append)])
    others = AE()
    others.add_requested_context(CR)
    held = others.associate("127.0.0.1", made.peer.port)
    with pytest.raises(NetworkError, match="Local limit exceeded") as raised:
        list(store(study, made.peer, patience=quick))
    assert raised.value.code == "peer-busy"
    assert len(tries) == quick.tries
    held.release()


def test_a_port_that_does_not_speak_dicom_is_told(site, study):
    port = int(site().peer.url.split(":")[2].split("/")[0])
    with pytest.raises(NetworkError, match="check that this is a DICOM port"):
        list(store(study, DicomPeer("127.0.0.1", port, "PACS"), patience=Patience(1, 0, 0.5)))


def test_more_kinds_of_objects_than_one_association_holds_go_over_several(node, study, tmp_path):
    image = pydicom.dcmread(study[0])
    files = []
    kinds = [context.abstract_syntax for context in AllStoragePresentationContexts[:65]]
    for number, kind in enumerate(kinds):
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = kind
        image.SOPInstanceUID = f"1.2.3.{number}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.PixelData = b"\0\0"
        image.save_as(tmp_path / f"{number}.dcm")
        files.append(tmp_path / f"{number}.dcm")
    made = node(contexts=[(uid, [ExplicitVRLittleEndian]) for uid in kinds])
    assert [one.error for one in store(files, made.peer)] == [None] * 65
    assert made.counts["associations"] == 2  # 64 classes, each as stored and in the common syntax


def test_a_file_that_is_no_dicom_is_told_and_the_others_go(node, study, tmp_path):
    (tmp_path / "text.dcm").write_text("patient list\n" * 20)
    (tmp_path / "zero.dcm").write_bytes(b"")
    (tmp_path / "head.dcm").write_bytes(study[0].read_bytes()[:300])
    nameless = pydicom.dcmread(study[0])
    with pytest.warns(UserWarning, match="Invalid value"):
        nameless.SOPInstanceUID = "not/a/uid"
    nameless.save_as(tmp_path / "nameless.dcm")
    other = pydicom.dcmread(study[0])
    other.SOPInstanceUID = "1.2.3"
    other.save_as(tmp_path / "contradiction.dcm")
    bad = sorted(tmp_path.iterdir())
    made = node()
    sent = {one.path.name: one.error for one in store([*bad, *study], made.peer)}
    assert sent.pop("text.dcm") == "not-an-image-file"
    assert sent.pop("zero.dcm") == "empty-file"
    assert sent.pop("head.dcm") in ("truncated", "unreadable-image", "bad-header")
    assert sent.pop("nameless.dcm") == "bad-header"
    assert sent.pop("contradiction.dcm") == "bad-header"
    assert sent == dict.fromkeys(("dx.dcm", "cr.dcm", "j2k.dcm"))


def test_a_file_without_preamble_and_file_meta_goes_too(node, study, tmp_path):
    dataset = pydicom.dcmread(study[1])
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, dataset)
    (tmp_path / "bare.dcm").write_bytes(stream.getvalue())
    made = node()
    (sent,) = store([tmp_path / "bare.dcm"], made.peer)
    assert sent.error is None, sent.message
    assert made.taken[0] == dataset
