"""The table of PS3.15, the options, and what the table misses."""

from __future__ import annotations

import sys

import pytest
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from medllm.dicom.deidentify import profile as profile_module
from medllm.dicom.deidentify import removable
from medllm.dicom.deidentify.profile import action_on, is_registered
from medllm.errors import DicomError

# What PS3.15 Table E.1-1 and its columns of options ask for, for attributes of CR and DX images,
# written from the standard and not from the package. X removed, Z emptied, U new UID, C date
# shifted, K kept, P pseudonym (a Z or D that is consistent).
STANDARD = {
    "X": """
        AcquisitionComments AdditionalPatientHistory AdmissionID AdmittingDiagnosesDescription
        Allergies CommentsOnThePerformedProcedureStep ContributionDescription CountryOfResidence
        CurrentPatientLocation DataSetTrailingPadding DerivationDescription
        DigitalSignaturesSequence FrameComments IconImageSequence ImageComments
        ImagingServiceRequestComments InstitutionAddress InstitutionalDepartmentName
        InsurancePlanIdentification IssuerOfPatientID MedicalAlerts MedicalRecordLocator
        MilitaryRank ModifiedAttributesSequence NameOfPhysiciansReadingStudy Occupation
        OriginalAttributesSequence OtherPatientIDs OtherPatientIDsSequence OtherPatientNames
        PatientAddress PatientBirthName PatientBirthTime PatientComments PatientMotherBirthName
        PatientReligiousPreference PatientTelephoneNumbers PerformedProcedureStepDescription
        PerformedProcedureStepID PerformingPhysicianName PersonAddress PersonTelephoneNumbers
        PhysiciansOfRecord PreMedication ReasonForStudy ReferencedPatientSequence
        ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers RegionOfResidence
        RequestAttributesSequence RequestedProcedureComments RequestingPhysician
        RequestingService ResponsibleOrganization ResponsiblePerson RetrieveAETitle
        ScheduledPerformingPhysicianName SeriesDescription ServiceEpisodeID SpecialNeeds
        StudyComments StudyDescription TimezoneOffsetFromUTC VisitComments
        ReferringPhysicianIdentificationSequence PhysiciansOfRecordIdentificationSequence
        ProtocolName AcquisitionDeviceProcessingDescription InstitutionName OperatorsName
        InstitutionCodeSequence OperatorIdentificationSequence ReferencedStudySequence
        ReferencedPerformedProcedureStepSequence RequestedProcedureDescription
    """,
    "Z": """
        AccessionNumber ConsultingPhysicianName ContrastBolusAgent ContentCreatorName
        FillerOrderNumberImagingServiceRequest PatientBirthDate
        PlacerOrderNumberImagingServiceRequest ReferringPhysicianName StudyID
        AcquisitionContextSequence
    """,
    "U": """
        SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID
        ReferencedSOPInstanceUID IrradiationEventUID InstanceCreatorUID TransactionUID
        SynchronizationFrameOfReferenceUID ConcatenationUID StorageMediaFileSetUID UID
    """,
    "C": """
        StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate AcquisitionDateTime
        StudyTime SeriesTime AcquisitionTime ContentTime PerformedProcedureStepStartDate
        PerformedProcedureStepEndDate DateOfLastCalibration DateOfSecondaryCapture
        DateOfLastDetectorCalibration ScheduledProcedureStepStartDate FrameAcquisitionDateTime
    """,
    "K": """
        PatientSex PatientSize PatientWeight EthnicGroup SmokingStatus PregnancyStatus
        PatientSexNeutered StationName DeviceSerialNumber DeviceUID DetectorID PlateID CassetteID
        GantryID GeneratorID PerformedStationName UDISequence Manufacturer ManufacturerModelName
        SoftwareVersions Modality ViewPosition BodyPartExamined ImagerPixelSpacing PixelSpacing
        ImageType KVP Exposure Rows BurnedInAnnotation PatientOrientation SOPClassUID
        ReferencedSOPClassUID ReferencedImageSequence SourceImageSequence CodeMeaning
        AnatomicRegionSequence ViewCodeSequence PresentationLUTShape WindowCenter PixelData
        VOILUTSequence LUTData ExposureIndex PatientSpeciesDescription
    """,
    "P": "PatientName PatientID ClinicalTrialSubjectID ClinicalTrialSubjectReadingID",
}
ACTIONS = {
    "X": "removed",
    "Z": "emptied",
    "U": "new UID",
    "C": "date shifted",
    "K": "kept",
    "P": "pseudonym",
}


@pytest.mark.parametrize("action", STANDARD)
def test_attributes_of_radiographs_are_treated_as_the_standard_says(action):
    found = {keyword: of(keyword) for keyword in STANDARD[action].split()}
    assert found == dict.fromkeys(found, ACTIONS[action])


def of(keyword):
    return action_on(Tag(keyword), dictionary_VR(Tag(keyword)))


@pytest.mark.parametrize(
    "keyword",
    [
        "PatientBirthDateInAlternativeCalendar",
        "PatientDeathDateInAlternativeCalendar",
        "CommentsOnTheScheduledProcedureStep",
        "EncryptedAttributesSequence",
        "MACParametersSequence",
        "IssuerOfAccessionNumberSequence",
        "OrderPlacerIdentifierSequence",
        "OrderFillerIdentifierSequence",
        "AssigningFacilitySequence",
        "AssigningJurisdictionCodeSequence",
        "AssigningAgencyOrDepartmentCodeSequence",
        "LocalNamespaceEntityID",
        "RetrieveURL",
        "ExtendedCodeMeaning",
        "TextValue",
        "ICCProfile",
        "TestResultComment",
    ],
)
def test_what_the_table_misses_is_removed(keyword):
    assert int(Tag(keyword)) not in profile_module._table()
    assert of(keyword) == "removed"


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00091010, "LO"),  # private
        (0x00090010, "LO"),  # the name of a private block
        (0x50003000, "OW"),  # curve data
        (0x501E0005, "US"),
        (0x60000010, "US"),  # rows of an overlay
        (0x60023000, "OW"),
        (0x60FE4000, "LT"),
        (0x00080000, "UL"),  # length of a group
        (0x00189998, "LO"),  # in no edition
        (0x00280010, "LO"),  # Rows, said to be text
        (0x00080020, "LO"),  # a date that is said to be text
        (0x40080300, "ST"),  # retired: Impressions
        (0x00203100, "CS"),  # retired: Source Image IDs
        (0x00080010, "SH"),  # retired, and in no table: Recognition Code
    ],
)
def test_what_has_no_place_in_an_image_is_removed(tag, vr):
    assert action_on(Tag(tag), vr) == "removed"


@pytest.mark.parametrize(
    "keyword",
    ["MultiFrameSourceSOPInstanceUID", "TargetFrameOfReferenceUID", "CreatorVersionUID"],
)
def test_uids_that_the_table_misses_are_replaced(keyword):
    assert of(keyword) == "new UID"


def test_a_value_that_must_be_there_is_replaced_by_one_that_says_nothing():
    assert of("ClinicalTrialSponsorName") == "replaced"
    assert of("AnnotationGroupUID") == "new UID"
    assert of("ContentSequence") == "removed"  # no image has one


def test_only_uids_of_the_standard_are_registered():
    assert is_registered("1.2.840.10008.1.2.1")
    assert not is_registered("1.2.840.10008.1.2.1.77")
    assert not is_registered("Quintilla")


@pytest.mark.parametrize(
    ("keyword", "is_one"),
    [
        ("StationName", True),
        ("ViewCodeSequence", True),
        ("ImageType", True),
        ("ExposureIndex", True),
        ("PixelData", False),
        ("Rows", False),
        ("SOPInstanceUID", False),
        ("StudyDate", False),
        ("Stationname", False),
        ("", False),
    ],
)
def test_text_and_sequences_can_be_removed_as_well(keyword, is_one):
    tag = removable(keyword)
    assert (tag is not None) is is_one
    assert not is_one or tag == Tag(keyword)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dicomanonymizer.dicomfields_selector", None)
    profile_module._table.cache_clear()
    try:
        with pytest.raises(DicomError, match=r"pip install 'medllm\[clinic\]'") as caught:
            of("StudyDescription")
    finally:
        profile_module._table.cache_clear()
    assert caught.value.code == "not-installed"
