"""Which values of a header a message may repeat: words that are no person's."""

from __future__ import annotations

import re

from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medllm.dicom.attributes import word

_UNKNOWN = "none that medllm knows"

# Defined terms of PS3.3: modality (C.7.3.1.1.1), photometric interpretation (C.7.6.3.1.2),
# polarity, intent, loss and burned in text; views with what devices add; and body parts (PS3.16 L).
_WORDS = """
ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD
IO IOL IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN
POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC
SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
MONOCHROME1 MONOCHROME2 PALETTE COLOR RGB HSV ARGB CMYK XYB YBR FULL PARTIAL 420 422 ICT RCT
IDENTITY INVERSE LIN OD FOR PRESENTATION PROCESSING 00 01 YES NO
AP LL RL RLD LLD RLO LLO RAO LAO RPO LPO LAT LLAT RLAT LATERAL FRONTAL OBLIQUE DECUBITUS ERECT
SUPINE PRONE UPRIGHT STANDING SITTING PORTABLE PORT LEFT RIGHT L R
ABDOMEN ABDOMENPELVIS ANKLE ARM BREAST CALCANEUS CHEST CHESTABDOMEN CLAVICLE COCCYX CSPINE ELBOW
EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW KNEE LEG LSPINE LUNG MANDIBLE NECK
ORBIT PATELLA PELVIS RIB RIBS SCAPULA SCOLIOSIS SHOULDER SINUS SKULL SPINE SSPINE STERNUM THIGH
THORAX THUMB TOE TSPINE WHOLEBODY WRIST
"""
_KNOWN = frozenset(_WORDS.split())
# With four numbers or more it is neither a name nor a date.
_UID = re.compile(r"[0-2](\.[0-9]+){3,}")


def known_word(dataset: Dataset, keyword: str) -> str | None:
    """Read an attribute of words that outputs repeat.

    Args:
        dataset: The header.
        keyword: Keyword of an attribute of words; a name can stand there by mistake.

    Returns:
        The first value, upper case, where all its words are known; None otherwise.
    """
    value = word(dataset, keyword)
    is_known = value is not None and _KNOWN.issuperset(re.split(r"[ _/-]+", value))
    return value if is_known else None


def quoted(dataset: Dataset, keyword: str) -> str:
    """Say what an attribute holds, in a message that may name nobody.

    Args:
        dataset: The header.
        keyword: Keyword of an attribute of words; a name can stand there by mistake.

    Returns:
        The first value, upper case, in quotation marks, where all its words are known.
    """
    if word(dataset, keyword) is None:
        return "absent"
    known = known_word(dataset, keyword)
    return _UNKNOWN if known is None else repr(known)


def quoted_uid(value: str | None) -> str:
    """Say what a UID names, in a message that may name nobody.

    Args:
        value: The UID, or what stands in its place.

    Returns:
        Its name in the standard, or itself where it has the form of a UID.
    """
    if not value:
        return "absent"
    uid = UID(value, validation_mode=IGNORE)
    return uid.name if uid.type or _UID.fullmatch(value) else _UNKNOWN
