"""The door: where identity ends. Keys, pseudonyms, and the date offset of each site.

The secret lies in a file of the user's alone, outside every workspace. What comes out of
here is opaque; what goes in never appears anywhere else.
"""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from platform_core.errors import WrongKey
from platform_core.manifest.workspace import Workspace
from platform_core.settings import Environment

KEY_BYTES = 32
N_HEX = 20
"""Length of a pseudonym: 80 bits, so that a million of them collide with a chance below 1e-12."""
MAX_WEEKS = 520
"""Dates move back by 52 to 571 weeks, one secret number per site."""
MAX_DAYS = 3287
"""In files that leave they move back by 366 to 3652 days, one secret number per patient."""


@dataclass(frozen=True, slots=True)
class Door:
    """Turns identifiers into pseudonyms with one workspace's secret."""

    secret: bytes = field(repr=False)
    fingerprint: str
    home: Path

    def series_key(self, site: str, series_uid: str, part: int) -> str:
        """Pseudonym of one part of one series."""
        return self.part_key(self.series_base(site, series_uid), part)

    def part_key(self, base: str, part: int) -> str:
        """The same, of a series that is a pseudonym already."""
        return self._pseudonym("part", base, str(part))

    def series_base(self, site: str, series_uid: str) -> str:
        """Pseudonym of a whole series, as the door book groups files."""
        return self._pseudonym("series", site, series_uid)

    def instance_key(self, site: str, sop_uid: str) -> str:
        """Pseudonym of one DICOM instance, for the door book."""
        return self._pseudonym("instance", site, sop_uid)

    def study_key(self, site: str, study_uid: str) -> str:
        """Pseudonym of one study."""
        return self._pseudonym("study", site, study_uid)

    def patient_key(self, issuer: str, patient_id: str) -> str:
        """Pseudonym of one patient; `issuer` is the site, or what several sites share."""
        return self._pseudonym("patient", issuer, patient_id)

    def unknown_patient_key(self, site: str, origin: str) -> str:
        """Stands in for a patient who is not stated: `origin` is the study UID or the content hash."""
        return self._pseudonym("unknown-patient", site, origin)

    def tombstone(self, patient_key: str) -> str:
        """What stands for a withdrawn patient: the door knows the key again, and nobody else can make one of it."""
        return self._pseudonym("withdrawn", patient_key)

    def reader_key(self, site: str, reader: str) -> str:
        """Pseudonym of who read a scan."""
        return self._pseudonym("reader", site, reader)

    def content_hash(self, data: bytes) -> str:
        """Keyed hash of a file's bytes: without the key nobody can test whether a known file is here."""
        return hmac.new(self.secret, b"content\x00" + hashlib.sha256(data).digest(), hashlib.sha256).hexdigest()

    def arrival_key(self, site: str, address: str, content: str) -> str:
        """Pseudonym of one file as it came: where it lay and what it held."""
        return self._pseudonym("arrival", site, address, content)

    def shift_date(self, site: str, day: date | None) -> date | None:
        """The day moved by the site's secret offset: whole weeks, so weekday, order and intervals survive."""
        if day is None:
            return None
        weeks = 52 + int.from_bytes(self._hmac("date", site)[:8]) % MAX_WEEKS
        return day - timedelta(weeks=weeks)

    def uid(self, uid: str) -> str:
        """Stands for a DICOM UID in every file that leaves, whichever site, study or run it comes from.

        A UID made of a UUID of version 8 (PS3.5 section B.2, RFC 9562 section 5.8): at most 44 characters.
        """
        bits = int.from_bytes(self._hmac("uid", uid)[:16])
        bits = bits & ~(0xF << 76) | 0x8 << 76
        bits = bits & ~(0x3 << 62) | 0x2 << 62
        return f"2.25.{bits}"

    def shift_patient_date(self, patient_key: str, day: date) -> date:
        """The day moved by a patient's secret offset, 1 to 10 years: for files that leave (rows move by site).

        Raises:
            OverflowError: If that is before the year 1.
        """
        return day - timedelta(days=366 + int.from_bytes(self._hmac("patient-date", patient_key)[:8]) % MAX_DAYS)

    def _pseudonym(self, kind: str, *parts: str) -> str:
        return self._hmac(kind, *parts).hex()[:N_HEX]

    def _hmac(self, kind: str, *parts: str) -> bytes:
        """HMAC-SHA256; lengths are written out so that ("ab", "c") and ("a", "bc") differ, and kinds never meet."""
        message = "".join(f"{len(part)}:{part};" for part in (kind, *parts))
        return hmac.new(self.secret, message.encode(), hashlib.sha256).digest()


def create_key(name: str, *, secret: bytes | None = None) -> str:
    """Make the secret of a new workspace and return its fingerprint.

    The key goes to a file that only its owner can read. With `SITEDRIFT_KEY` set that key
    is used and nothing is written.

    Args:
        name: The workspace it is for; a note in the file, not part of the key.
        secret: The key itself, for synthetic data that must come out the same twice; by default it is drawn.

    Raises:
        WrongKey: If `SITEDRIFT_KEY` is no key.
    """
    environment = Environment()
    if environment.key is not None:
        return _fingerprint(_parse(environment.key, "in SITEDRIFT_KEY"))
    secret = secret or secrets.token_bytes(KEY_BYTES)
    fingerprint = _fingerprint(secret)
    file = _key_file(environment, fingerprint)
    if file.exists():
        return fingerprint
    private_folder(file.parent)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(f"# pseudonym key of the workspace {name!r}: keep a copy in a safe place\n{secret.hex()}\n")
    return fingerprint


def open_door(workspace: Workspace) -> Door:
    """The door of a workspace, its key checked against the fingerprint that the workspace keeps.

    Raises:
        WrongKey: If the key is missing, broken or another workspace's.
    """
    environment, fingerprint = Environment(), workspace.settings.key_fingerprint
    home = environment.home.expanduser()
    if environment.key is not None:
        where, secret = "in SITEDRIFT_KEY", _parse(environment.key, "in SITEDRIFT_KEY")
    else:
        file = _key_file(environment, fingerprint)
        where, secret = str(file), _read_key(file)
    if _fingerprint(secret) != fingerprint:
        raise WrongKey(where, f"belongs to another workspace; this one needs {fingerprint}")
    return Door(secret=secret, fingerprint=fingerprint, home=home / "doors" / fingerprint)


def private_folder(path: Path) -> Path:
    """The folder, made if needed, for its owner's eyes only."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def _key_file(environment: Environment, fingerprint: str) -> Path:
    return environment.home.expanduser() / "keys" / f"{fingerprint}.key"


def _fingerprint(secret: bytes) -> str:
    return hashlib.sha256(b"sitedrift key\x00" + secret).hexdigest()[:16]


def _read_key(file: Path) -> bytes:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise WrongKey(str(file), "cannot be read") from error
    return _parse(next((line for line in lines if line and not line.startswith("#")), ""), str(file))


def _parse(text: str, where: str) -> bytes:
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * KEY_BYTES},}}", text.strip()) or len(text.strip()) % 2:
        raise WrongKey(where, f"is not a key (at least {2 * KEY_BYTES} hexadecimal digits)")
    return bytes.fromhex(text.strip())
