"""PHI canaries: synthetic identities that go through the door with every batch; all of them must die.

The door takes a canary in as it takes in a scan, but what it would write is captured and
searched. What is found is told by the kind of place it was planted in, never by value.
"""

import base64
import gzip
import hashlib
import hmac
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote

from platform_core.dicom.canary import Canary, Planted, draw_canaries
from platform_core.manifest.door import Door

RULE = "phi_canaries"
NOT_TAKEN_IN = "not_taken_in"
"""A canary that the door should have accepted was refused: what it carries was not tested."""
PIXELS = "pixels"
ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "iso2022_jp", "shift_jis", "euc_jp", "gb18030")
PLAIN_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be")
"""Those in which ASCII text differs."""
MIN_REMAINDER = 6
"""What is left of a text when its accents are lost is searched for if it has so many letters."""
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryScore:
    """How many planted identities went in, how many died, and which kinds survived."""

    n_planted: int = 0
    n_died: int = 0
    survivors: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether all died."""
        return self.n_died == self.n_planted and not self.survivors

    @property
    def summary(self) -> str:
        """One line for the terminal and the tables."""
        told = f"{self.n_died} of {self.n_planted} planted identities died"
        return told + (f"; survived: {', '.join(self.survivors)}" if self.survivors else "")

    def __add__(self, other: "CanaryScore") -> "CanaryScore":
        return CanaryScore(
            n_planted=self.n_planted + other.n_planted,
            n_died=self.n_died + other.n_died,
            survivors=tuple(sorted({*self.survivors, *other.survivors})),
        )


@dataclass(frozen=True, slots=True, repr=False)
class Passage:
    """What the door did with one canary: the reason if it refused it, and all that it would have written or told."""

    refusal: str | None
    written: tuple[object, ...]
    """Rows, paths, details, log lines, encoded volumes: text, bytes, numbers, dates, or mappings and lists of them."""


def plant(door: Door, batch: str) -> tuple[Canary, ...]:
    """The canaries of one batch: nobody without the key can know them, the same batch has the same."""
    return draw_canaries(hmac.new(door.secret, b"canary\x00" + batch.encode(), hashlib.sha256).digest())


def send_through(canaries: Iterable[Canary], take_in: Callable[[Canary], Passage]) -> CanaryScore:
    """Let the door take in each canary, and search what comes out."""
    return sum((weigh(canary, take_in(canary)) for canary in canaries), CanaryScore())


def weigh(canary: Canary, passage: Passage) -> CanaryScore:
    """What became of the identities of one canary."""
    if canary.refusal is None and passage.refusal is not None:
        return CanaryScore(n_planted=len(canary.planted), survivors=(NOT_TAKEN_IN,))
    alive = _alive(canary.planted, passage.written)
    if canary.refusal is not None and passage.refusal != canary.refusal:
        alive |= {planted for planted in canary.planted if planted.kind == PIXELS}
    return CanaryScore(
        n_planted=len(canary.planted),
        n_died=sum(planted not in alive for planted in canary.planted),
        survivors=tuple(sorted({planted.kind for planted in alive})),
    )


def survivors(canaries: Iterable[Canary], written: Iterable[object]) -> list[str]:
    """Kinds of planted identities that are found in what was written, in any case, order or encoding; in name order."""
    planted = [one for canary in canaries for one in canary.planted]
    return sorted({one.kind for one in _alive(planted, written)})


def quality_row(site: str, run: str, score: CanaryScore) -> dict[str, Any]:
    """The score as a row of `out__quality`."""
    return {
        "site": site,
        "run": run,
        "rule": RULE,
        "severity": "error",
        "series_key": None,
        "passed": score.is_clean,
        "observed": score.summary,
        "because": "What de-identifies must be seen to do so with every batch: nothing downstream starts otherwise.",
    }


def _alive(planted: Sequence[Planted], written: Iterable[object]) -> set[Planted]:
    pieces = list(_pieces(written))
    exact = b"\x00\x00".join(pieces)
    folded = exact.lower()
    return {one for one in planted if _is_found(one, exact, folded)}


def _is_found(planted: Planted, exact: bytes, folded: bytes) -> bool:
    spelt = set(_spellings(planted))
    texts = {text for spelling in spelt for text in (spelling, spelling.lower(), spelling.upper())}
    needles = {needle.lower() for text in texts for needle in _encoded(text)}
    coded = {needle for text in texts for needle in _base64(text.encode())}
    return any(needle in folded for needle in needles) or any(needle in exact for needle in coded)


def _pieces(written: Iterable[object]) -> Iterator[bytes]:
    """Everything as bytes; what is compressed as it is and unpacked."""
    for one in written:
        if isinstance(one, bytes | bytearray | memoryview):
            yield from _unpacked(bytes(one))
        elif isinstance(one, str):
            yield one.encode()
        elif isinstance(one, Mapping):
            yield from _pieces([*one.keys(), *one.values()])
        elif isinstance(one, date):
            yield one.isoformat().encode()
        elif isinstance(one, Iterable):
            yield from _pieces(one)
        elif one is not None:
            yield str(one).encode()


def _unpacked(data: bytes) -> Iterator[bytes]:
    yield data
    if data[:2] == GZIP:
        try:
            yield gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return


def _spellings(planted: Planted) -> Iterator[str]:
    """How one identity may be written."""
    text = planted.text
    yield text
    if planted.form == "number":
        yield re.sub(r"\D", "", text)
        yield re.sub(r"\W", "", text)
    elif planted.form == "uid":
        yield text.rpartition(".")[2]
    elif planted.form == "date":
        year, month, day = text[:4], text[4:6], text[6:]
        for sign in "-./ ":
            yield from (sign.join(parts) for parts in ((year, month, day), (day, month, year), (month, day, year)))
        yield f"{year}, {int(month)}, {int(day)}"
    elif not text.isascii():
        yield from _without_accents(text)


def _without_accents(text: str) -> Iterator[str]:
    """As programs spell what they cannot write."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    left = [re.sub(r"[^\x00-\x7f]", sign, text) for sign in ("", " ", "?", "_")]
    german = text.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    yield from (spelt for spelt in (plain, german, *left) if sum(map(str.isalnum, spelt)) >= MIN_REMAINDER)


def _encoded(text: str) -> Iterator[bytes]:
    for encoding in PLAIN_ENCODINGS if text.isascii() else ENCODINGS:
        try:
            yield text.encode(encoding)
        except UnicodeEncodeError:
            continue
    yield text.encode().hex().encode()
    yield quote(text).encode()
    yield json.dumps(text)[1:-1].encode()


def _base64(data: bytes) -> Iterator[bytes]:
    """The middle of its base64 at each of the three places where it may begin."""
    for n_before in range(3):
        coded = base64.b64encode(b"\x00" * n_before + data)
        end = len(coded) - 4 if (n_before + len(data)) % 3 else len(coded)
        yield coded[4 if n_before else 0 : end]
