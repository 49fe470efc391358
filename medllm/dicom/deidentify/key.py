"""What stands for an identifier: values that only the holder of the key can make again."""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from medllm.errors import DicomError

_KEY_BYTES = 32
# A longer file is somebody's image or document, named by mistake.
_MAX_KEY_BYTES = 4096
# 32 random bytes hold fewer different ones once in 10^16 keys; zeros and passwords repeat.
_MIN_DIFFERENT_BYTES = 16

# A value is a keyed name and, behind it, a keyed mark of that name, by which a second run knows
# its own values and leaves them. By chance a foreign value carries the mark once in 2^30 UIDs of
# the same form, and once in 2^20 patient ids of the same form.
_UID_NAME_BITS, _UID_MARK_BITS = 92, 30
# 80 bits are 16 letters, the most that VR SH takes; a million patients share a name by chance
# once in 2 million keys.
_PATIENT_NAME_BITS, _PATIENT_MARK_BITS = 60, 20

# Dates go back by one to ten years.
_FEWEST_DAYS, _MOST_DAYS = 365, 3652


@dataclass(frozen=True)
class Key:
    """The secret that pseudonyms, UIDs and date shifts are made from, by HMAC-SHA256.

    Attributes:
        secret: The bytes of the key file; `repr` does not show them.
    """

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Eight digits that name the key and tell nothing of it."""
        return self._digest("fingerprint", "").hex()[:8]

    def uid(self, original: str) -> str:
        """Make the UID that stands for another.

        Args:
            original: The UID; one that this key made stays as it is.

        Returns:
            A UID below 2.25, the same on every machine.

        Source:
            DICOM PS3.5 B.2 (UUID derived UID), RFC 9562 5.8 (UUID version 8).
        """
        original = _stripped(original)
        if self._made_uid(original):
            return original
        return f"2.25.{_uuid(self._named('uid', original, _UID_NAME_BITS, _UID_MARK_BITS))}"

    def pseudonym(self, original: str) -> str:
        """Make the pseudonym that stands for a patient's identifier.

        Args:
            original: Patient ID (0010,0020); one that this key made stays as it is.

        Returns:
            16 letters and digits.
        """
        original = _stripped(original)
        if self.made_pseudonym(original):
            return original
        number = self._named("patient", original, _PATIENT_NAME_BITS, _PATIENT_MARK_BITS)
        return base64.b32encode(number.to_bytes(10)).decode()

    def made_pseudonym(self, value: str) -> bool:
        """Tell whether a patient's identifier is a pseudonym of this key.

        Args:
            value: Patient ID (0010,0020).

        Returns:
            Whether it carries the key's mark.
        """
        value = _stripped(value)
        if not re.fullmatch(r"[A-Z2-7]{16}", value):
            return False
        number = int.from_bytes(base64.b32decode(value))
        return self._is_named("patient", number, _PATIENT_MARK_BITS)

    def shift_days(self, pseudonym: str) -> int:
        """Find by how many days a patient's dates go back.

        Args:
            pseudonym: The patient's pseudonym.

        Returns:
            Days, from one year to ten.
        """
        span = _MOST_DAYS - _FEWEST_DAYS + 1
        # 256 bits over 3,288 days: no day is more likely than another by more than 2^-244.
        return _FEWEST_DAYS + int.from_bytes(self._digest("days", pseudonym)) % span

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.digest(self.secret, f"{purpose}\0{value}".encode(), "sha256")

    def _named(self, purpose: str, value: str, name_bits: int, mark_bits: int) -> int:
        name = _first_bits(self._digest(purpose, value), name_bits)
        return name << mark_bits | self._mark(purpose, name, mark_bits)

    def _mark(self, purpose: str, name: int, mark_bits: int) -> int:
        return _first_bits(self._digest(f"mark of {purpose}", str(name)), mark_bits)

    def _is_named(self, purpose: str, number: int, mark_bits: int) -> bool:
        name, mark = number >> mark_bits, number & (1 << mark_bits) - 1
        return mark == self._mark(purpose, name, mark_bits)

    def _made_uid(self, value: str) -> bool:
        match = re.fullmatch(r"2\.25\.(\d{1,39})", value)
        if match is None or int(match[1]) >> 128:
            return False
        uuid = int(match[1])
        number = uuid >> 80 << 74 | (uuid >> 64 & 0xFFF) << 62 | uuid & (1 << 62) - 1
        return _uuid(number) == uuid and self._is_named("uid", number, _UID_MARK_BITS)


def open_key(path: Path) -> tuple[Key, bool]:
    """Read a key file, or make one where there is none.

    Args:
        path: The file. A new one holds 32 random bytes that only its owner can read.

    Returns:
        The key, and whether it was made now.

    Raises:
        DicomError: The file cannot be read or made, others can read it, or what it holds is
            no key.
    """
    try:
        made = not path.exists()
        if made:
            _make(path)
        secret = _read(path)
    except OSError as error:
        raise DicomError(
            f"{path}: the key cannot be read or made ({error.strerror}); check --key.",
            code="bad-key",
        ) from None
    return Key(secret), made


def _make(path: Path) -> None:
    # O_EXCL: two processes that start together must not work with two keys.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            # Without its key a set of files can never be added to: it must outlive a power cut.
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)  # half a key is worse than none
        raise


def _read(path: Path) -> bytes:
    status = path.stat()
    if os.name == "posix" and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DicomError(
            f"{path}: others than its owner may use the key; chmod 600 it, and make a new one "
            "if others have read it.",
            code="bad-key",
        )
    if not _KEY_BYTES <= status.st_size <= _MAX_KEY_BYTES:
        raise DicomError(
            f"{path}: the file has {status.st_size} bytes, a key has {_KEY_BYTES} to "
            f"{_MAX_KEY_BYTES}; name a file that is not there and it is made.",
            code="bad-key",
        )
    secret = path.read_bytes()
    if len(set(secret)) < _MIN_DIFFERENT_BYTES:
        raise DicomError(
            f"{path}: the file holds {len(set(secret))} different bytes and is not random; name "
            "a file that is not there and it is made.",
            code="bad-key",
        )
    return secret


def _stripped(value: str) -> str:
    return unicodedata.normalize("NFC", value).strip(" \0")


def _first_bits(digest: bytes, bits: int) -> int:
    return int.from_bytes(digest) >> 8 * len(digest) - bits


def _uuid(number: int) -> int:
    """Set 122 bits among the six of UUID version 8."""
    return (
        number >> 74 << 80
        | 8 << 76
        | (number >> 62 & 0xFFF) << 64
        | 2 << 62
        | number & (1 << 62) - 1
    )
