"""Whole files: what is planted leaves no trace, what research needs stays."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from medllm.dicom import read_radiograph
from medllm.dicom.deidentify import Key, deidentify_file, removable
from medllm.errors import DicomError
from medllm.phantom import Lesion, make_phantom, write_dicom

KEY = Key(bytes(range(32)))
SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
]

# One secret a place: what is left says where it came from. None is a word of the field.
NAME, GIVEN, ID = "Żebrowski", "Quintilla", "QX7731904"


def item(**attributes):
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def plant(dataset):
    """Put identifiers into a data set in every way that headers are known to hold them."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"{NAME}^{GIVEN}"
    dataset.PatientID = ID
    dataset.OtherPatientIDs = ["OTHERID55121", ID]
    dataset.OtherPatientIDsSequence = [item(PatientID="OTHERID88231", IssuerOfPatientID="Issuerby")]
    dataset.PatientBirthDate = "19310704"
    dataset["00100033"] = DataElement(0x00100033, "LO", "Showa 6 Kigensetsu")
    dataset.PatientBirthName = "Maidenhead^Vera"
    dataset.PatientMotherBirthName = "Mothername^Ida"
    dataset.PatientAddress = "17 Nightingale Crescent"
    dataset.PatientTelephoneNumbers = "+48 601 778 123"
    dataset.PatientComments = "daughter of the mayor, Commentaria"
    dataset.AdditionalPatientHistory = f"{NAME} fell from a Velocipede"
    dataset.AccessionNumber = "ACC9914207"
    dataset.StudyID = ID
    dataset.InstitutionName = "Ospedale Incurabili"
    dataset.InstitutionAddress = "Via Segretissima 4"
    dataset.ReferringPhysicianName = "Referrenz^Otto"
    dataset.OperatorsName = ["Operanda^Eva", "Technikus^Jan"]
    dataset.ContentCreatorName = "Creatorius^Max"
    dataset.ReferringPhysicianIdentificationSequence = [
        item(
            PersonTelephoneNumbers="555-198-2231",
            InstitutionName="Innerhospital",
            PersonIdentificationCodeSequence=[
                item(CodeValue="PHYS90", CodingSchemeDesignator="99X", CodeMeaning="Codemeanius")
            ],
        )
    ]
    dataset.StudyDescription = f"chest of {NAME}, Studyword"
    dataset.SeriesDescription = "Seriesword"
    dataset.ProtocolName = "Protocolword"
    dataset.ImageComments = "Imageword"
    dataset.CommentsOnTheScheduledProcedureStep = "Stepword"
    dataset.RequestAttributesSequence = [
        item(RequestedProcedureID="RPID771", ScheduledProcedureStepDescription="Requestword")
    ]
    dataset.ReasonForVisit = "Reasonword"
    dataset["40080300"] = DataElement(0x40080300, "ST", "Impressionword")
    dataset["40084000"] = DataElement(0x40084000, "ST", "Resultword")
    # UIDs: own, shared, nested, and with a date within.
    dataset.StudyInstanceUID = "1.2.840.99999.20190304.771"
    dataset.FrameOfReferenceUID = "1.2.840.99999.20190304.772"
    dataset.IrradiationEventUID = "1.2.840.99999.20190304.773"
    reference = item(
        ReferencedSOPClassUID=dataset.SOPClassUID,
        ReferencedSOPInstanceUID="1.2.840.99999.20190304.774",
        PurposeOfReferenceCodeSequence=[],
    )
    dataset.ReferencedImageSequence = [reference]
    dataset.SourceImageSequence = [
        item(
            ReferencedSOPClassUID=dataset.SOPClassUID,
            ReferencedSOPInstanceUID=dataset.SOPInstanceUID,
        )
    ]
    # Dates: of the study, with a time of day, in a sequence, and as a number.
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20190304"
    dataset.AcquisitionDateTime = "20190304112207.5+0100"
    dataset.DateOfLastCalibration = "20190115"
    dataset.PerformedProtocolCodeSequence = [
        item(
            CodeValue="CH1",
            CodingSchemeDesignator="99X",
            CodeMeaning="Chest",
            ContextGroupLocalVersion="20190304",
        )
    ]
    # Private: text, a sequence, an unknown.
    block = dataset.private_block(0x0029, "PRIVATORIUS 1.0", create=True)
    block.add_new(0x01, "LO", f"{NAME}, Privateword")
    block.add_new(0x02, "SQ", [item(PatientName="Privatename^Ivo")])
    block.add_new(0x03, "UN", "Wideword".encode("utf-16-le"))
    block.add_new(0x04, "OB", b"Narrowword")
    # Overlay and curve, with words in bits and in text.
    dataset.add_new(0x60000010, "US", 96)
    dataset.add_new(0x60000022, "LO", "Overlaydescription")
    dataset.add_new(0x60003000, "OW", b"Overlaybits\0")
    dataset.add_new(0x60004000, "LT", "Overlaycomment")
    dataset.add_new(0x50003000, "OW", b"Curvebits\0")
    dataset.add_new(0x50000022, "LO", "Curvedescription")
    dataset.IconImageSequence = [item(Rows=1, Columns=8, PixelData=b"Iconbits")]
    dataset.IconImageSequence[0]["PixelData"].VR = "OW"
    dataset.OriginalAttributesSequence = [
        item(
            SourceOfPreviousValues="Sourceword",
            ModifiedAttributesSequence=[item(PatientName=f"{NAME}^Formerly", PatientID="FORMERID")],
        )
    ]
    dataset.DigitalSignaturesSequence = [
        item(MACIDNumber=1, DigitalSignatureUID="1.2.840.99999.775", Signature=b"Signatureword ")
    ]
    dataset.EncryptedAttributesSequence = [item(EncryptedContent=b"Encryptedword ")]
    dataset["FFFCFFFC"] = DataElement(0xFFFCFFFC, "OB", b"Trailingword")
    # An attribute that no edition has.
    dataset.add_new(0x00091010, "LO", "oddgroupword")
    dataset[Tag(0x0018, 0x9998)] = DataElement(0x00189998, "LO", "Unknowntagword")
    dataset.PersonName = "Observatius^Leo"
    dataset.VerifyingObserverSequence = [item(VerifyingObserverName="Verificus^Ben")]
    dataset.RetrieveURL = "https://pacs.urlword.example/patient"
    dataset.file_meta.SourceApplicationEntityTitle = "SOURCEAEWORD"
    dataset.file_meta.SendingApplicationEntityTitle = "SENDERAEWORD"
    dataset.file_meta.ImplementationVersionName = "IMPLNAMEWORD"
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.840.99999.776"
    dataset.file_meta.PrivateInformation = b"Metaprivateword "
    dataset.preamble = b"Preambleword".ljust(128)
    return dataset


SECRETS = [
    *(NAME, "Zebrowski", GIVEN, ID, "OTHERID55121", "OTHERID88231", "Issuerby", "19310704"),
    *("Kigensetsu", "Maidenhead", "Mothername", "Nightingale", "778 123", "Commentaria"),
    *("Velocipede", "ACC9914207", "Incurabili", "Segretissima", "Referrenz", "Operanda"),
    *("Technikus", "Creatorius", "198-2231", "Innerhospital", "PHYS90", "Codemeanius"),
    *("Studyword", "Seriesword", "Protocolword", "Imageword", "Stepword", "RPID771"),
    *("Requestword", "Reasonword", "Impressionword", "Resultword", "99999.2019", "1.2.840.99999"),
    *("20190304", "20190115", "+0100", "PRIVATORIUS", "Privateword", "Privatename", "Wideword"),
    *("Narrowword", "Overlaydescription", "Overlaybits", "Overlaycomment", "Curvebits"),
    *("Curvedescription", "Iconbits", "Sourceword", "Formerly", "FORMERID", "Signatureword"),
    *("Encryptedword", "Trailingword", "oddgroupword", "Unknowntagword", "Observatius"),
    *("Verificus", "urlword", "SOURCEAEWORD", "SENDERAEWORD", "IMPLNAMEWORD"),
    *("Metaprivateword", "Preambleword"),
]


def traces(data: bytes, secrets=SECRETS) -> list[str]:
    """Find secrets in bytes, in any case and in each encoding that could hide them."""
    low = data.lower()  # of bytes, only the letters of ASCII
    return [
        secret
        for secret in secrets
        for codec in ("utf-8", "latin-1", "iso8859-2", "utf-16-le", "utf-16-be")
        if any(
            written.encode(codec, "replace") in bytes_
            for written, bytes_ in ((secret.lower(), low), (secret, data), (secret.upper(), data))
        )
    ]


def inflated(data: bytes) -> bytes:
    """Undo the deflation of a data set, so that its bytes can be searched."""
    length = int.from_bytes(data[140:144], "little") + 144
    return data[:length] + zlib.decompress(data[length:], -zlib.MAX_WBITS)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """A phantom in each transfer syntax, with all secrets planted."""
    folder = tmp_path_factory.mktemp("planted")
    phantom = make_phantom(3, size=128, lesions=[Lesion("effusion", "left")])
    files = {}
    for number, syntax in enumerate(SYNTAXES):
        plain = write_dicom(
            phantom, folder / f"plain{number}.dcm", transfer_syntax=syntax, modality="CR"
        )
        planted = folder / f"{NAME}-{number}.dcm"
        plant(pydicom.dcmread(plain)).save_as(planted, enforce_file_format=True)
        files[syntax] = planted
    return files


@pytest.fixture
def changed(phantoms, tmp_path):
    """The planted phantom with some attributes changed, as a file; None takes one out."""

    def write_changed(**attributes):
        dataset = pydicom.dcmread(phantoms[ExplicitVRLittleEndian])
        for keyword, value in attributes.items():
            if value is None:
                dataset.pop(keyword, None)
            else:
                tag = Tag(keyword)
                vr = pydicom.datadict.dictionary_VR(tag)
                dataset[tag] = DataElement(tag, vr, value, validation_mode=0)
        path = tmp_path / "changed.dcm"
        dataset.save_as(path)
        return path

    return write_changed


def parsed(made):
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(made.data))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_planted_identifier_leaves_a_trace(phantoms, syntax):
    source = phantoms[syntax].read_bytes()
    deflated = syntax == DeflatedExplicitVRLittleEndian
    planted = set(traces(inflated(source) if deflated else source))
    assert set(SECRETS) - planted == {"Zebrowski"}  # never written without its dot
    made = deidentify_file(phantoms[syntax], KEY)
    assert traces(inflated(made.data) if deflated else made.data) == []
    assert traces(repr((made.actions, made.gates, made.patient)).encode()) == []


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pixels_stay_the_same_to_the_byte_and_are_read_the_same(phantoms, syntax, tmp_path):
    made = deidentify_file(phantoms[syntax], KEY)
    before, after = pydicom.dcmread(phantoms[syntax]), parsed(made)
    assert after.PixelData == before.PixelData
    assert after.file_meta.TransferSyntaxUID == syntax
    path = tmp_path / "new.dcm"
    path.write_bytes(made.data)
    old, new = read_radiograph(phantoms[syntax]), read_radiograph(path)
    assert np.array_equal(new.pixels, old.pixels)
    for field in ("age_years", "sex", "view_position", "pixel_spacing_mm", "patient_orientation"):
        assert getattr(new, field) == getattr(old, field) is not None
    assert {gate.code for gate in new.warnings} == {gate.code for gate in old.warnings}


def test_what_research_needs_stays(changed):
    kept = {
        "PatientSex": "F",
        "PatientAge": "089Y",
        "PatientSize": 1.7,
        "PatientWeight": 64.5,
        "ViewPosition": "AP",
        "BodyPartExamined": "CHEST",
        "Manufacturer": "Maker",
        "ManufacturerModelName": "DX-1000",
        "DeviceSerialNumber": "SN-4711",
        "StationName": "DX1",
        "DetectorID": "D123",
        "StudyTime": "112207.25",
        "KVP": 120,
        "BurnedInAnnotation": "NO",
    }
    new = parsed(deidentify_file(changed(**kept), KEY))
    assert {keyword: new[keyword].value for keyword in kept} == kept
    assert [code.CodeMeaning for code in new.PerformedProtocolCodeSequence] == ["Chest"]


@pytest.mark.parametrize(
    ("age", "wanted"),
    [
        ("089Y", "089Y"),
        ("090Y", "090Y"),
        ("101Y", "090Y"),
        ("101", "090Y"),
        ("58", "58"),
        ("999M", "999M"),
        ("011D", "011D"),
        ("about 70", None),
    ],
)
def test_everybody_over_89_has_one_age(changed, age, wanted):
    assert parsed(deidentify_file(changed(PatientAge=age), KEY)).get("PatientAge") == wanted


@pytest.mark.parametrize(
    ("born", "wanted"),
    [
        ("19310704", "087Y"),
        ("19290303", "090Y"),
        ("19000101", "090Y"),
        ("20190303", "000M"),
        ("20170305", "023M"),
        ("20170304", "002Y"),
        ("", None),
        ("20200101", None),
    ],
)
def test_an_age_that_only_the_birth_date_told_is_worked_out(changed, born, wanted):
    new = parsed(deidentify_file(changed(PatientAge=None, PatientBirthDate=born), KEY))
    assert new.get("PatientAge") == wanted
    assert new.PatientBirthDate == ""


def test_the_profile_writes_itself_in(phantoms):
    new = parsed(deidentify_file(phantoms[ExplicitVRLittleEndian], KEY))
    assert new.PatientIdentityRemoved == "YES"
    assert new.LongitudinalTemporalInformationModified == "MODIFIED"
    assert new.DeidentificationMethod[1] == f"key {KEY.fingerprint}"
    written = [
        (code.CodeValue, code.CodeMeaning) for code in new.DeidentificationMethodCodeSequence
    ]
    assert [value for value, _ in written] == ["113100", "113107", "113108", "113109"]
    names = (name for name in codes.cid7050.dir())
    known = {code.value: code.meaning for code in (getattr(codes.cid7050, n) for n in names)}
    assert dict(written).items() <= known.items()
    assert new.PatientName == f"{new.PatientID}^"
    assert new.preamble == bytes(128)
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID


def test_references_lead_where_they_led(phantoms):
    new = parsed(deidentify_file(phantoms[ExplicitVRLittleEndian], KEY))
    assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == new.SOPInstanceUID
    reference = new.ReferencedImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == KEY.uid("1.2.840.99999.20190304.774")
    assert reference.ReferencedSOPClassUID == new.SOPClassUID


def test_dates_of_one_patient_move_together_and_their_intervals_stay(changed):
    first = parsed(deidentify_file(changed(), KEY))
    later = {"StudyDate": "20190412", "StudyInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.4"}
    second = parsed(deidentify_file(changed(**later), KEY))
    days = [pydicom.valuerep.DA(new.StudyDate) for new in (first, second)]
    assert (days[1] - days[0]).days == 39  # from 4 March to 12 April
    shift = KEY.shift_days(first.PatientID)
    assert (pydicom.valuerep.DA("20190304") - days[0]).days == shift
    # The day within a date and time is the same, its time stays, its offset from UTC does not.
    assert first.AcquisitionDateTime == f"{first.StudyDate}112207.5"
    assert first.PerformedProtocolCodeSequence[0].ContextGroupLocalVersion == first.StudyDate


def test_dates_of_two_patients_move_apart(changed):
    new = [parsed(deidentify_file(changed(PatientID=f"OTHER{n}"), KEY)) for n in range(5)]
    assert len({each.PatientID for each in new}) == len({each.StudyDate for each in new}) == 5


def test_a_second_pass_with_the_same_key_changes_nothing(phantoms, tmp_path):
    for syntax, path in phantoms.items():
        once = deidentify_file(path, KEY)
        assert deidentify_file(path, KEY).data == once.data
        again = tmp_path / f"{syntax}.dcm"
        again.write_bytes(once.data)
        assert deidentify_file(again, KEY).data == once.data


def test_what_an_archive_writes_back_is_taken_out_again(phantoms, tmp_path):
    once = deidentify_file(phantoms[ExplicitVRLittleEndian], KEY)
    dataset = parsed(once)
    dataset.PatientName, dataset.OperatorsName = f"{NAME}^{GIVEN}", "Operanda^Eva"
    coerced = tmp_path / "coerced.dcm"
    dataset.save_as(coerced)
    assert deidentify_file(coerced, KEY).data == once.data


def test_another_key_makes_another_patient_of_the_result(phantoms, tmp_path):
    once = deidentify_file(phantoms[ExplicitVRLittleEndian], KEY)
    path = tmp_path / "once.dcm"
    path.write_bytes(once.data)
    twice = deidentify_file(path, Key(bytes(range(1, 33))))
    assert twice.patient != once.patient
    assert twice.sop_instance_uid != once.sop_instance_uid
    assert traces(twice.data, [once.patient, once.sop_instance_uid, parsed(once).StudyDate]) == []


@pytest.mark.parametrize("missing", ["absent", "empty"])
def test_without_a_patient_id_the_study_stands_for_the_patient(changed, missing):
    value = None if missing == "absent" else ""
    first = deidentify_file(changed(PatientID=value), KEY)
    same = deidentify_file(changed(PatientID=value, SOPInstanceUID="1.2.3.4"), KEY)
    other = deidentify_file(changed(PatientID=value, StudyInstanceUID="1.2.3"), KEY)
    assert first.patient == same.patient != other.patient
    assert "no-patient-id" in {gate.code for gate in first.warnings}


def test_a_missing_study_uid_is_not_made_up(changed):
    new = parsed(deidentify_file(changed(StudyInstanceUID=None, PatientID=None), KEY))
    assert "StudyInstanceUID" not in new
    assert KEY.made_pseudonym(new.PatientID)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StationName", "QUINTILLA"),  # a given name
        ("StationName", f"CR-{ID}"),  # an id within
        ("Manufacturer", "made for ZEBROWSKI"),  # without its accent
        ("SoftwareVersions", "quintilla zebrowski"),
        ("LUTExplanation", "see ACC-9914207"),  # written another way
        ("DetectorID", "4.3.19"),  # the study's date
        ("DetectorID", "2019-03-04"),
        ("AcquisitionDeviceProcessingCode", "4 March 2019"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "INCURABILI"]),
        ("DeviceSerialNumber", "1.2.840.99999.20190304.771"),
        ("Sensitivity", "19310704"),  # a birth date as a number
        ("ManufacturerModelName", "601778123"),  # the telephone
        ("StationName", "OTHERID88231"),  # from within a sequence that is gone
    ],
)
def test_what_was_taken_out_may_not_stand_elsewhere(changed, keyword, value):
    path = changed(**{keyword: value})
    with pytest.raises(DicomError) as caught:
        deidentify_file(path, KEY)
    assert caught.value.code == "residue"
    assert str(Tag(keyword)) in str(caught.value)
    assert (
        traces(str(caught.value).replace(str(path), "").encode(), ["quintilla", ID, "2019"]) == []
    )
    made = deidentify_file(path, KEY, remove=[removable(keyword)])
    assert keyword not in parsed(made)


@pytest.mark.parametrize(
    ("keyword", "left"),
    [
        ("StudyTime", ""),
        ("StudyDate", ""),
        ("AcquisitionDateTime", ""),
        ("PatientAge", None),
        ("Sensitivity", None),  # a decimal string
        ("SeriesNumber", None),  # an integer string
    ],
)
def test_text_in_the_place_of_a_number_or_a_date_goes(changed, keyword, left):
    path = changed()
    dataset = pydicom.dcmread(path)
    vr = pydicom.datadict.dictionary_VR(keyword)
    raw = (Tag(keyword), vr, 10, b"Nowhereman", 0, False, True)
    dataset._dict[Tag(keyword)] = pydicom.dataelem.RawDataElement(*raw)
    dataset.save_as(path)
    assert traces(path.read_bytes(), ["Nowhereman"])
    made = deidentify_file(path, KEY)
    assert traces(made.data, ["Nowhereman"]) == []
    assert parsed(made).get(keyword) == left


def test_what_was_taken_out_is_found_at_any_depth(changed):
    deep = item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning=f"of {GIVEN}")
    view = item(CodeValue="2", CodingSchemeDesignator="99X", ViewModifierCodeSequence=[deep])
    path = changed(ViewCodeSequence=[view])
    with pytest.raises(
        DicomError, match=r"View Code Sequence .* > View Modifier .* > Code Meaning"
    ):
        deidentify_file(path, KEY)
    assert "ViewCodeSequence" not in parsed(
        deidentify_file(path, KEY, remove=[removable("ViewCodeSequence")])
    )


@pytest.mark.parametrize(
    ("name", "keyword", "value"),
    [
        ("Black^Anna", "BorderDensity", "BLACK"),
        ("Philips^Chest", "Manufacturer", "Philips Medical Systems"),
        ("Lee^Ann", "SoftwareVersions", "SLEEVE ANNEX"),  # within longer words
        ("Li^Bo", "DetectorID", "LI-BO-7"),  # two letters meet anywhere
    ],
)
def test_an_ordinary_word_is_no_alarm(changed, name, keyword, value):
    path = changed(PatientName=name, **{keyword: value})
    assert parsed(deidentify_file(path, KEY))[keyword].value == value


@pytest.mark.parametrize("patient_id", ["1", "512", "2048"])
def test_a_short_number_is_no_alarm(changed, patient_id):
    path = changed(PatientID=patient_id, WindowCenter="2048", InstanceNumber="512")
    assert parsed(deidentify_file(path, KEY)).WindowCenter == 2048


def test_names_in_other_scripts_are_found(changed):
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    for value in ("DR 山田 1", "室太郎", "やまだ"):
        with pytest.raises(DicomError, match="Station Name"):
            deidentify_file(changed(PatientName=name, StationName=value), KEY)
    with pytest.raises(DicomError, match="Station Name"):
        deidentify_file(changed(PatientName="Kim=김^철수", StationName="철수"), KEY)


def test_a_comment_in_the_codestream_is_looked_at(make_dataset, write, stored):
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    grey = Image.fromarray((stored >> 4).astype(np.uint8))
    grey.save(stream, "JPEG", comment=f"scan of {GIVEN}")
    dataset = make_dataset((stored >> 4).astype(np.uint8), PatientName=f"Doe^{GIVEN}")
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([stream.getvalue()])
    path = write(dataset)
    with pytest.raises(DicomError, match="comment within the compressed") as caught:
        deidentify_file(path, KEY)
    assert caught.value.code == "residue"
    dataset.PatientName = "Doe^Jane"
    assert deidentify_file(write(dataset), KEY)


def test_a_comment_in_a_jpeg_2000_codestream_is_looked_at(make_dataset, write):
    dataset = make_dataset(PatientName=f"Doe^{GIVEN}")
    dataset.compress(JPEG2000Lossless)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    text = f"scan of {GIVEN}".encode()
    comment = b"\xff\x64" + (len(text) + 4).to_bytes(2) + b"\0\1" + text
    start = frame.index(b"\xff\x90")  # the first tile part
    dataset.PixelData = encapsulate([frame[:start] + comment + frame[start:]])
    with pytest.raises(DicomError, match="comment within the compressed"):
        deidentify_file(write(dataset), KEY)


@pytest.mark.parametrize(
    ("code", "attributes"),
    [
        ("burned-in-annotation", {"BurnedInAnnotation": "YES"}),
        ("secondary-capture", {"SOPClassUID": SecondaryCaptureImageStorage}),
        ("not-human", {"ProtocolName": "CANINE THORAX"}),
    ],
)
def test_an_image_that_may_show_more_is_refused_until_somebody_has_looked(
    changed, code, attributes
):
    path = changed(**attributes)
    with pytest.raises(DicomError, match=f"accept '{code}'") as caught:
        deidentify_file(path, KEY)
    assert caught.value.code == code
    made = deidentify_file(path, KEY, accept=[code])
    assert code in {gate.code for gate in made.warnings}
    assert parsed(made).get("BurnedInAnnotation") == attributes.get("BurnedInAnnotation", "NO")


def test_a_stated_species_stays_and_is_no_reason_to_refuse(changed):
    made = deidentify_file(changed(PatientSpeciesDescription="Canis lupus familiaris"), KEY)
    assert parsed(made).PatientSpeciesDescription == "Canis lupus familiaris"


def test_bits_and_bytes_beyond_the_image_are_refused(make_dataset, write, stored):
    plain = make_dataset()
    assert deidentify_file(write(plain), KEY)
    overlaid = make_dataset(stored | np.uint16(0x8000))
    for dataset in (overlaid, make_dataset(), make_dataset()):
        if dataset is not overlaid:
            dataset.PixelData += b"written behind  "
        path = write(dataset)
        with pytest.raises(DicomError) as caught:
            deidentify_file(path, KEY)
        assert caught.value.code == "hidden-bits"
        assert parsed(deidentify_file(path, KEY, accept=["hidden-bits"])).PixelData == (
            dataset.PixelData
        )
    described = make_dataset()
    described.add_new(0x60000102, "US", 15)
    with pytest.raises(DicomError, match="accept 'hidden-bits'"):
        deidentify_file(write(described), KEY)


def test_bits_beyond_the_image_are_found_in_big_endian_too(make_dataset, write, stored):
    for pixels, hidden in ((stored, False), (stored | np.uint16(0x8000), True)):
        dataset = make_dataset(pixels)
        dataset.PixelData = pixels.astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        path = write(dataset)
        if hidden:
            with pytest.raises(DicomError, match="hidden-bits"):
                deidentify_file(path, KEY)
        else:
            assert parsed(deidentify_file(path, KEY)).PixelData == dataset.PixelData


def test_other_objects_are_refused_and_their_values_not_told():
    for name in ("CT_small.dcm", "reportsi.dcm"):
        with pytest.raises(DicomError, match="radiographs alone") as caught:
            deidentify_file(get_testdata_file(name), KEY, accept=["secondary-capture"])
        assert caught.value.code == "not-a-radiograph"


def test_a_class_that_is_none_is_not_quoted(changed):
    with pytest.raises(DicomError, match="none that medllm knows"):
        deidentify_file(changed(SOPClassUID="1.2.3.77319"), KEY)


def test_pictures_have_no_header(tmp_path):
    from PIL import Image

    path = tmp_path / "scan.png"
    Image.new("L", (80, 80)).save(path)
    with pytest.raises(DicomError, match="PNG files have no header") as caught:
        deidentify_file(path, KEY)
    assert caught.value.code == "no-header"


def test_a_code_that_cannot_be_accepted_is_wrong_use(phantoms):
    with pytest.raises(ValueError, match="not-a-radiograph"):
        deidentify_file(phantoms[ExplicitVRLittleEndian], KEY, accept=["not-a-radiograph"])


def test_a_damaged_header_is_one_error_without_its_values(phantoms, tmp_path):
    data = phantoms[ExplicitVRLittleEndian].read_bytes()
    path = tmp_path / "cut.dcm"
    for share in (0.02, 0.05, 0.1, 0.5):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DicomError) as caught:
            deidentify_file(path, KEY)
        assert caught.value.code in ("truncated", "unreadable-image", "bad-header")
        assert traces(str(caught.value).encode()) == []


def test_nothing_of_a_value_reaches_a_log(changed, caplog, recwarn):
    path = changed()
    dataset = pydicom.dcmread(path)
    dataset["StudyDate"] = DataElement(0x00080020, "DA", "2019030X", validation_mode=0)
    dataset["StudyInstanceUID"] = DataElement(0x0020000D, "UI", "1.2.QUINTILLA", validation_mode=0)
    dataset.save_as(path)
    recwarn.clear()
    caplog.clear()
    assert deidentify_file(path, KEY)
    assert [str(one.message) for one in recwarn] == []
    assert caplog.text == ""


def test_a_file_that_is_encoded_otherwise_than_it_states_goes_through():
    path = get_testdata_file("SC_rgb_jpeg.dcm")  # implicit elements under an explicit syntax
    with pytest.warns(UserWarning, match="found implicit VR"):
        old = pydicom.dcmread(path)
    assert not old.file_meta.TransferSyntaxUID.is_implicit_VR
    new = parsed(deidentify_file(path, KEY, accept=["secondary-capture"]))
    assert new.PixelData == old.PixelData
    assert new.Rows == old.Rows


@pytest.mark.parametrize("name", ["cr_no_file_meta_monochrome1", "nih_dx_implicit_monochrome2"])
def test_real_radiographs_go_through(real_dicom, name, tmp_path):
    path = real_dicom / f"{name}.dcm"
    made = deidentify_file(path, KEY, accept=["secondary-capture"])
    new = tmp_path / "new.dcm"
    new.write_bytes(made.data)
    before, after = read_radiograph(path), read_radiograph(new)
    assert np.array_equal(before.pixels, after.pixels)
    old = pydicom.dcmread(path, force=True)
    uids = [old.SOPInstanceUID, old.StudyInstanceUID, old.SeriesInstanceUID]
    dates = [old.get("AcquisitionDate", ""), old.get("InstanceCreationDate", "")]
    texts = [old.get("AccessionNumber", ""), old.get("InstitutionName", ""), *uids, *dates]
    assert traces(made.data, [text for text in texts if text]) == []
    # Old devices write dots between the numbers of a date; it moves all the same.
    assert re.fullmatch(r"\d{8}", parsed(made).get("AcquisitionDate", "00000000"))


def errors(path):
    """What dciodvfy, which is not ours, says is wrong in a file."""
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    done = subprocess.run(  # noqa: S603
        [dciodvfy, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    return {re.sub(r"<[^>]*>", "", line) for line in lines}


@pytest.mark.integration
def test_dciodvfy_finds_no_error_that_the_source_had_not(phantoms, tmp_path, data_root):
    phantom = make_phantom(5, size=128)
    plain = [
        write_dicom(
            phantom,
            tmp_path / f"{modality}-{polarity}-{number}.dcm",
            modality=modality,
            photometric_interpretation=polarity,
            transfer_syntax=syntax,
        )
        for modality in ("CR", "DX")
        for polarity in ("MONOCHROME1", "MONOCHROME2")
        for number, syntax in enumerate((ImplicitVRLittleEndian, JPEG2000Lossless))
    ]
    human = [
        data_root / "dicom" / f"{name}.dcm"
        for name in ("cr_no_file_meta_monochrome1", "nih_dx_implicit_monochrome2")
    ]
    new = tmp_path / "new.dcm"
    for path in [*plain, *human]:
        new.write_bytes(deidentify_file(path, KEY, accept=["secondary-capture"]).data)
        assert errors(new) <= errors(path), path.name
        assert path in human or errors(new) == set()


ISSUERS = [
    "IssuerOfAccessionNumberSequence",
    "OrderPlacerIdentifierSequence",
    "OrderFillerIdentifierSequence",
]


@pytest.mark.parametrize("keyword", ISSUERS)
def test_who_gave_out_a_number_leaves_nothing_invalid_behind(keyword, tmp_path):
    """PS3.3 Table 10-17: an issuer without its name is none."""
    path = write_dicom(make_phantom(5, size=128), tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    issuer = item(
        LocalNamespaceEntityID="Ospedale Incurabili",
        UniversalEntityID="1.2.840.99999.7",
        UniversalEntityIDType="ISO",
    )
    setattr(dataset, keyword, [issuer])
    dataset.save_as(path)
    assert errors(path) == set()
    made = deidentify_file(path, KEY)
    path.write_bytes(made.data)
    assert keyword not in parsed(made)
    assert traces(made.data, ["Incurabili", "99999.7"]) == []
    assert errors(path) == set()


# Any attribute that holds text, but for those that say what the object is.
_STRUCTURE = {"SOPClassUID", "SOPInstanceUID", "SpecificCharacterSet", "Modality"}
_TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR"}
TEXT_KEYWORDS = sorted(
    keyword
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
    if vr in _TEXTS and keyword not in _STRUCTURE and tag >> 16 >= 8
)


@given(
    st.lists(st.sampled_from(TEXT_KEYWORDS), min_size=1, max_size=6, unique=True),
    st.sampled_from(["Zebrowski", "seen by ZEBROWSKI.", "x^zebrowski", "Zebrowski QX7731904"]),
    st.booleans(),
)
@example(["PatientBirthDateInAlternativeCalendar"], "Zebrowski", True)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.filterwarnings("ignore")
def test_no_header_lets_a_name_through(make_dataset, write, keywords, value, nested):
    dataset = make_dataset(PatientName="Zebrowski^Quintilla", PatientID=ID)
    inner = Dataset()
    for keyword in keywords:
        tag = Tag(keyword)
        vr = pydicom.datadict.dictionary_VR(tag)
        element = DataElement(tag, vr, value, validation_mode=0)
        (inner if nested and tag.group > 0x10 else dataset)[tag] = element
    dataset.ViewCodeSequence = Sequence([inner])
    path = write(dataset)
    assert traces(path.read_bytes(), ["Zebrowski"])
    try:
        made = deidentify_file(path, KEY, accept=["not-human"])
    except DicomError as error:
        refused = error
    else:
        assert traces(made.data, ["Zebrowski", ID]) == []
        return
    assert refused.code == "residue"
    assert traces(str(refused).encode(), ["Zebrowski", ID]) == []
    named = re.findall(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)", str(refused))[-1]
    assert keyword_for_tag(Tag(*named)) in keywords
