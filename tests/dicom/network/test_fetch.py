"""Fetching: a real PACS by both roads, and archives that lie, hang up, or have no end."""

from __future__ import annotations

import io
import json
import socket

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from medllm.dicom import read_radiograph
from medllm.dicom.network import (
    Fetched,
    Instance,
    Patience,
    Study,
    fetch,
    find_study,
    parse_peer,
    store,
)
from medllm.dicom.network.shelf import Shelf
from medllm.errors import NetworkError

ROADS = ("dicom_url", "web_url")


@pytest.fixture
def archive(orthanc, study, free_port):
    """The PACS with the study; gives its peer by a road, and the port that it knows us at."""
    assert all(one.error is None for one in store(study, parse_peer(orthanc.web_url)))
    port = free_port()
    orthanc.introduce("MEDLLM", port)
    return lambda road: parse_peer(getattr(orthanc, road)), port


@pytest.fixture(scope="session")
def study_uid(study) -> str:
    return str(pydicom.dcmread(study[0]).StudyInstanceUID)


@pytest.mark.integration
@pytest.mark.parametrize("road", ROADS)
def test_a_study_comes_back_as_it_was_stored(archive, study, uids, study_uid, tmp_path, road):
    at, port = archive
    found = find_study(at(road), accession_number="ACC-7391")
    assert found.study_instance_uid == study_uid
    assert {one.sop_instance_uid for one in found.instances} == set(uids)
    fetched = list(fetch(at(road), found, tmp_path / "new" / "folder", port=port))
    assert all(one.error is None and one.new for one in fetched)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        f"{uid}.dcm" for uid in uids
    )
    for file, uid in zip(study, uids, strict=True):
        path = tmp_path / "new" / "folder" / f"{uid}.dcm"
        got, wanted = pydicom.dcmread(path), pydicom.dcmread(file)
        assert got.file_meta.TransferSyntaxUID == wanted.file_meta.TransferSyntaxUID
        assert got.PixelData == wanted.PixelData  # JPEG 2000 to the byte: no decoder was at it
        assert got.PatientName == wanted.PatientName
        assert (read_radiograph(path).pixels == read_radiograph(file).pixels).all()


@pytest.mark.integration
@pytest.mark.parametrize("road", ROADS)
def test_what_is_there_whole_is_not_fetched_again(archive, study, uids, study_uid, tmp_path, road):
    at, port = archive
    found = find_study(at(road), study_instance_uid=study_uid)
    ended_early = fetch(at(road), found, tmp_path, port=port)
    next(ended_early)
    ended_early.close()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert 1 <= len(before) <= 3
    uid, file = next((uid, file) for uid, file in zip(uids, study, strict=True)
                     if len(before) == 3 or tmp_path / f"{uid}.dcm" not in before)  # fmt: skip
    cut_off = tmp_path / f"{uid}.dcm"
    before.pop(cut_off, None)
    cut_off.write_bytes(file.read_bytes()[:-500])
    again = list(fetch(at(road), found, tmp_path, port=port))
    assert [one.error for one in again] == [None] * 3
    assert {one.path for one in again if not one.new} == set(before)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert pydicom.dcmread(cut_off).PixelData == pydicom.dcmread(file).PixelData
    assert not any(one.new for one in fetch(at(road), found, tmp_path, port=port))


@pytest.mark.integration
@pytest.mark.parametrize("road", ROADS)
def test_a_full_disk_leaves_nothing_half_written(archive, study_uid, tmp_path, full_disk, road):
    at, port = archive
    found = find_study(at(road), study_instance_uid=study_uid)
    with full_disk(20_000), pytest.raises(NetworkError, match="cannot be written to") as raised:
        list(fetch(at(road), found, tmp_path, port=port))
    assert raised.value.code == "unwritable-folder"
    assert "File too large" in str(raised.value)
    for path in tmp_path.iterdir():  # JPEG 2000 fits
        assert path.suffix == ".dcm"
        assert pydicom.dcmread(path).pixel_array.size
    assert [one.error for one in fetch(at(road), found, tmp_path, port=port)] == [None] * 3


@pytest.mark.integration
@pytest.mark.parametrize("road", ROADS)
def test_what_the_pacs_does_not_have_is_told(archive, orthanc, study, tmp_path, road):
    at, _ = archive
    for wanted in ({"study_instance_uid": "1.2.3"}, {"accession_number": "ACC-73"}):
        with pytest.raises(NetworkError) as raised:
            find_study(at(road), **wanted)
        assert raised.value.code == "no-such-study"
        assert "ACC" not in str(raised.value)
    other = pydicom.dcmread(study[0])
    other.StudyInstanceUID, other.SOPInstanceUID = "1.2.3.4", "1.2.3.4.5"
    other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    other.save_as(tmp_path / "other.dcm")
    assert [one.error for one in store([tmp_path / "other.dcm"], at(road))] == [None]
    with pytest.raises(NetworkError, match=r"2 studies.*--study: 1\.2\.3\.4, ") as raised:
        find_study(at(road), accession_number="ACC-7391")
    assert raised.value.code == "several-studies"


@pytest.mark.integration
def test_a_pacs_that_does_not_know_us_says_so(archive, orthanc, study_uid, tmp_path):
    _, port = archive
    peer = parse_peer(orthanc.dicom_url, calling_ae_title="STRANGER")
    found = find_study(peer, study_instance_uid=study_uid)
    with pytest.raises(NetworkError, match=f"'STRANGER' as a node on this machine at port {port}"):
        list(fetch(peer, found, tmp_path, port=port, patience=Patience(1, 0, 5)))
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_told(study_uid, node, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        wanted = Study(study_uid, (Instance("1.2", "1.3"),))
        with pytest.raises(NetworkError, match=f"port {port}.*--port") as raised:
            list(fetch(node().peer, wanted, tmp_path, port=port))
    assert raised.value.code == "port-in-use"


@pytest.mark.parametrize("accession", ["*", "ACC?", "A\\B", "", " ", "x" * 17])
def test_an_accession_number_that_would_match_others_is_refused(site, accession):
    made = site()
    with pytest.raises(ValueError, match="accession_number"):
        find_study(made.peer, accession_number=accession)
    assert not made.asked


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/3", "1..2", ".", "", "1." * 40, "1.2\n"])
def test_what_is_no_uid_names_no_file(tmp_path, uid):
    with pytest.raises(ValueError, match="UID"):
        Shelf(tmp_path, "1.2").path(uid)
    with pytest.raises(ValueError, match="UID"):
        find_study(parse_peer("http://127.0.0.1:1"), study_instance_uid=uid)


# Archives that misbehave, by both protocols.


def _json(**values: str) -> dict[str, object]:
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found.to_json_dict()


def _multipart(content: bytes) -> tuple[int, dict[str, str], bytes]:
    kind = 'multipart/related; type="application/dicom"; boundary=B'
    head = b"--B\r\nContent-Type: application/dicom\r\n\r\n"
    return 200, {"Content-Type": kind}, head + content + b"\r\n--B--\r\n"


@pytest.fixture
def web_archive(site, study, uids, study_uid):
    """A DICOMweb archive of the study, whose answers a test can change."""
    made = site()
    made.contents = dict(zip(uids, (file.read_bytes() for file in study), strict=True))
    made.listed = [_json(SeriesInstanceUID="1.2", SOPInstanceUID=uid) for uid in uids]

    def answer(path: str):
        if "/instances?" in path:
            offset = int(path.split("offset=")[1].split("&")[0])
            page = made.listed[offset : offset + 2]  # less at once than it is asked for
            return 200, {"Content-Type": "application/dicom+json"}, json.dumps(page).encode()
        return _multipart(made.contents[path.rsplit("/", 1)[1]])

    made.answer = answer
    return made


def test_a_list_that_comes_in_pages_is_read_to_its_end(web_archive, study_uid, uids, tmp_path):
    found = find_study(web_archive.peer, study_instance_uid=study_uid)
    assert [one.sop_instance_uid for one in found.instances] == uids
    assert [one.error for one in fetch(web_archive.peer, found, tmp_path)] == [None] * 3


def test_names_that_are_no_uids_are_counted_and_left(web_archive, study_uid, tmp_path):
    for evil in ("../../evil", "1.2/../../evil"):
        item = {"0020000E": {"vr": "UI", "Value": ["1.2"]}}
        web_archive.listed.append(item | {"00080018": {"vr": "UI", "Value": [evil]}})
    found = find_study(web_archive.peer, study_instance_uid=study_uid)
    assert (len(found.instances), found.n_unnamed) == (3, 2)
    assert len(list(fetch(web_archive.peer, found, tmp_path / "here"))) == 3
    assert not any("evil" in path for _, path, _ in web_archive.asked)


def test_another_object_than_the_one_asked_for_is_not_kept(web_archive, study_uid, uids, tmp_path):
    web_archive.contents[uids[0]] = web_archive.contents[uids[1]]
    foreign = pydicom.dcmread(io.BytesIO(web_archive.contents[uids[2]]))
    foreign.StudyInstanceUID = "1.2.3"
    with io.BytesIO() as stream:
        foreign.save_as(stream)
        web_archive.contents[uids[2]] = stream.getvalue()
    found = find_study(web_archive.peer, study_instance_uid=study_uid)
    errors = {one.sop_instance_uid: one.error for one in fetch(web_archive.peer, found, tmp_path)}
    assert errors == {uids[0]: "other-object", uids[1]: None, uids[2]: "other-object"}
    assert [path.stem for path in tmp_path.iterdir()] == [uids[1]]


def test_an_object_that_is_cut_off_is_not_kept(web_archive, study_uid, uids, tmp_path):
    for uid in (uids[0], uids[2]):  # stored values, and a codestream
        web_archive.contents[uid] = web_archive.contents[uid][:-500]
    found = find_study(web_archive.peer, study_instance_uid=study_uid)
    for _ in range(2):
        got = {one.sop_instance_uid: one.error for one in fetch(web_archive.peer, found, tmp_path)}
        assert got == {uids[0]: "other-object", uids[1]: None, uids[2]: "other-object"}
        assert [path.stem for path in tmp_path.iterdir()] == [uids[1]]


def test_faults_that_pass_are_tried_again(web_archive, study_uid, uids, tmp_path, quick):
    found = find_study(web_archive.peer, study_instance_uid=study_uid)
    right, faults = web_archive.answer, iter([(503, {}, b""), (0, {}, b""), (429, {}, b"")])
    web_archive.answer = lambda path: next(faults, None) or right(path)
    assert [one.error for one in fetch(web_archive.peer, found, tmp_path, patience=Patience(4, 0))]
    assert {path.stem for path in tmp_path.iterdir()} == set(uids)


def test_one_object_that_is_refused_does_not_stop_the_others(
    web_archive, study_uid, uids, tmp_path
):
    found = find_study(web_archive.peer, study_instance_uid=study_uid)
    right = web_archive.answer
    wrong = {uids[0]: (500, {}, b""), uids[1]: (200, {"Content-Type": "text/html"}, b"<html>")}
    web_archive.answer = lambda path: wrong.get(path.rsplit("/", 1)[1]) or right(path)
    errors = {one.sop_instance_uid: one.error for one in fetch(web_archive.peer, found, tmp_path)}
    assert errors == {uids[0]: "refused", uids[1]: "bad-answer", uids[2]: None}


def test_a_pacs_that_goes_away_midway_leaves_what_came(web_archive, study_uid, tmp_path, quick):
    found = find_study(web_archive.peer, study_instance_uid=study_uid)
    right, n_good = web_archive.answer, iter([1])
    web_archive.answer = lambda path: right(path) if next(n_good, 0) else (0, {}, b"")
    with pytest.raises(NetworkError) as raised:
        list(fetch(web_archive.peer, found, tmp_path, patience=quick))
    assert raised.value.code == "connection-lost"
    assert len(list(tmp_path.iterdir())) == 1
    web_archive.answer = right
    again = list(fetch(web_archive.peer, found, tmp_path, patience=quick))
    assert [one.new for one in again].count(False) == 1
    assert [one.error for one in again] == [None] * 3


FIND = (StudyRootQueryRetrieveInformationModelFind, ImplicitVRLittleEndian)
MOVE = (StudyRootQueryRetrieveInformationModelMove, ImplicitVRLittleEndian)


def _found(**values: str) -> tuple[int, Dataset]:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return 0xFF00, dataset


def test_an_archive_that_ignores_the_accession_number_gives_nobody_elses_study(node):
    def answer(_):
        yield _found(StudyInstanceUID="1.2.3", AccessionNumber="OTHER")
        yield _found(StudyInstanceUID="1.2.4", AccessionNumber="")

    made = node(contexts=[FIND], handlers=[(evt.EVT_C_FIND, answer)])
    with pytest.raises(NetworkError) as raised:
        find_study(made.peer, accession_number="MINE")
    assert raised.value.code == "no-such-study"


@pytest.mark.parametrize(
    ("contexts", "answer", "code", "words"),
    [
        ([MOVE], None, "not-accepted", "takes no queries"),
        ([FIND], lambda _: iter([(0xA900, None)]), "refused", "0xA900"),
        ([FIND], lambda event: event.assoc.abort() or iter(()), "connection-lost", "hung up"),
    ],
)
def test_a_query_that_fails_is_told(node, quick, contexts, answer, code, words):
    handlers = [(evt.EVT_C_FIND, answer)] if answer else []
    made = node(contexts=contexts, handlers=handlers)
    with pytest.raises(NetworkError, match=words) as raised:
        find_study(made.peer, study_instance_uid="1.2.3", patience=quick)
    assert raised.value.code == code


def test_an_answer_that_cannot_be_read_is_told_and_not_left_out(node, quick, monkeypatch):
    # A Specific Character Set with a zero in it; a node of pynetdicom would not send such a thing.
    written = [encode(_found(SeriesInstanceUID="1.2")[1], True, True), b"\x08\0\x05\0\2\0\0\0\0A"]
    encoded = iter(written)
    monkeypatch.setattr("pynetdicom.service_class.encode", lambda *_: next(encoded))
    answers = [_found(SeriesInstanceUID="1.2")] * len(written)
    made = node(contexts=[FIND], handlers=[(evt.EVT_C_FIND, lambda _: iter(answers))])
    with pytest.raises(NetworkError, match="0xFF00.*cannot be read") as raised:
        find_study(made.peer, study_instance_uid="1.2.3", patience=quick)
    assert raised.value.code == "bad-answer"


def _moving(datasets, statuses=(0x0000,)):
    """Send data sets to where the request says, as an archive does, whatever was asked for."""

    def answer(event: evt.Event):
        yield ("127.0.0.1", answer.port, {"contexts": answer.contexts})
        yield len(datasets)
        for dataset in datasets:
            yield 0xFF00, dataset

    return answer


def test_a_move_that_brings_foreign_objects_keeps_only_what_was_asked_for(
    node, study, uids, study_uid, tmp_path, free_port
):
    from pynetdicom import build_context

    datasets = [pydicom.dcmread(file) for file in study]
    forged = pydicom.dcmread(study[1])
    forged.StudyInstanceUID = "1.2.3"
    answer = _moving([datasets[0], forged, datasets[2]])
    answer.port = free_port()
    answer.contexts = [
        build_context(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets
    ]
    made = node(contexts=[MOVE], handlers=[(evt.EVT_C_MOVE, answer)])
    wanted = Study(study_uid, (Instance("1.2", uids[0]), Instance("1.2", uids[1])))
    got = {
        one.sop_instance_uid: one for one in fetch(made.peer, wanted, tmp_path, port=answer.port)
    }
    assert got[uids[0]] == Fetched(tmp_path / f"{uids[0]}.dcm", uids[0])
    assert got[uids[1]].error == "other-object"
    assert [path.stem for path in tmp_path.iterdir()] == [uids[0]]


def test_who_sends_what_no_pdu_is_while_a_move_runs_is_hung_up_on(node, tmp_path, free_port):
    def answer(_):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            stranger.sendall(b"\x01\0\xff\xff\xff\xf0")
            heard.append(stranger.recv(1))
        yield None, None

    heard, port = [], free_port()
    made = node(contexts=[MOVE], handlers=[(evt.EVT_C_MOVE, answer)])
    wanted = Study("1.2", (Instance("1.2", "1.3"),))
    with pytest.raises(NetworkError):
        list(fetch(made.peer, wanted, tmp_path, port=port))
    assert heard == [b""]


def test_a_move_that_ends_too_early_says_what_did_not_come(
    node, study, uids, study_uid, tmp_path, free_port
):
    from pynetdicom import build_context

    first = pydicom.dcmread(study[0])
    answer = _moving([first])
    answer.port = free_port()
    answer.contexts = [build_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)]
    made = node(contexts=[MOVE], handlers=[(evt.EVT_C_MOVE, answer)])
    wanted = Study(study_uid, tuple(Instance("1.2", uid) for uid in uids))
    got = {
        one.sop_instance_uid: one.error
        for one in fetch(made.peer, wanted, tmp_path, port=answer.port)
    }
    assert got == {uids[0]: None, uids[1]: "not-sent", uids[2]: "not-sent"}
