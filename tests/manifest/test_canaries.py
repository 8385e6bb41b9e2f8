"""Planted identities die at a sound door, and a door with a hole is caught, whatever the hole."""

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest

from platform_core import layout
from platform_core.dicom.burned_in import BURNED_IN_TEXT, has_text_like_regions
from platform_core.dicom.canary import Canary, Planted
from platform_core.dicom.header import Scan, open_scan
from platform_core.dicom.pixels import decode
from platform_core.errors import IdentityLeak
from platform_core.imaging.nifti import encode_volume
from platform_core.imaging.volume import Volume
from platform_core.manifest.canaries import (
    NOT_TAKEN_IN,
    CanaryScore,
    Passage,
    plant,
    quality_row,
    send_through,
    survivors,
    weigh,
)
from platform_core.manifest.door import Door, open_door
from platform_core.manifest.schemas import QUALITY
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of

KEPT = ("modality", "manufacturer", "scanner_model", "kernel", "kvp", "body_part", "view")
WORKED_ON = "20260105T070000-0001/00000"

Row = dict[str, Any]


@pytest.fixture
def door(workspace: Workspace) -> Door:
    return open_door(workspace)


@pytest.fixture
def canaries(door: Door) -> tuple[Canary, ...]:
    return plant(door, WORKED_ON)


def row_of(door: Door, scan: Scan) -> Row:
    """What a sound door writes of one file."""
    facts = asdict(scan.header)
    who = scan.identity
    return {name: facts[name] for name in KEPT} | {
        "series_key": door.series_key("north", who.series_uid, 0),
        "study_key": door.study_key("north", who.study_uid),
        "patient_key": door.patient_key("north", who.patient_id),
        "acquired_on": door.shift_date("north", who.acquired_on),
        "ingested_at": datetime(2026, 1, 5, 7, tzinfo=UTC),
    }


def take_in(door: Door, hole: Callable[[Scan, Row], object] = lambda *_: None) -> Callable[[Canary], Passage]:
    """A door that keeps what it may, and what its hole lets through."""

    def through(canary: Canary) -> Passage:
        written: list[object] = []
        refusal = None
        for address, data in canary.files:
            scan = open_scan(data)
            row = row_of(door, scan)
            pixels = decode(scan)
            if has_text_like_regions(pixels, scan.header.modality):
                refusal = BURNED_IN_TEXT
            else:
                written.append(encode_volume(Volume(np.asarray(pixels), None)))
            leaked = hole(scan, row)
            written += [row, layout.volume_path("north", "native", row["series_key"], 1), leaked]
            written.append(door.arrival_key("north", address, door.content_hash(data)))
        return Passage(refusal, tuple(written))

    return through


def planted_of(canaries: tuple[Canary, ...], kind: str) -> Planted:
    return next(one for canary in canaries for one in canary.planted if one.kind == kind)


def test_at_a_sound_door_all_die(door: Door, canaries: tuple[Canary, ...]) -> None:
    score = send_through(canaries, take_in(door))
    assert score.survivors == ()
    assert score.is_clean
    assert score.n_planted > 100


def test_a_batch_has_its_own_canaries_and_the_same_ones_again(door: Door, canaries: tuple[Canary, ...]) -> None:
    assert plant(door, WORKED_ON) == canaries
    other = {one.text for canary in plant(door, "another batch") for one in canary.planted}
    assert not other & {one.text for canary in canaries for one in canary.planted}
    foreign = replace(door, secret=b"\x01" * 32)
    assert {c.planted for c in plant(foreign, WORKED_ON)}.isdisjoint({c.planted for c in canaries})


def test_what_is_planted_is_in_the_files_under_its_kind(canaries: tuple[Canary, ...]) -> None:
    """Else a canary would die because it never lived."""
    for canary in canaries:
        planted = [one for one in canary.planted if one.kind != "pixels"]
        decoded = [str(pydicom.dcmread(BytesIO(data))) for _, data in canary.files]
        everything = [*(data for _, data in canary.files), *(address for address, _ in canary.files), *decoded]
        assert set(survivors([replace(canary, planted=tuple(planted))], everything)) == {one.kind for one in planted}


def test_every_kind_of_place_is_covered(canaries: tuple[Canary, ...]) -> None:
    kinds = {one.kind for canary in canaries for one in canary.planted}
    assert kinds >= {
        "patient_name", "patient_id", "birth_date", "study_date", "accession_number", "referring_physician",
        "institution_name", "patient_comments", "series_description", "protocol_name", "station_name",
        "device_serial", "nested_sequence", "private_value", "private_bytes", "private_creator", "siemens_csa",
        "preamble", "address", "manufacturer", "scanner_model", "software", "kernel", "file_meta", "series_uid",
        "instance_uid", "multi_byte_name", "trailing_padding", "pixels",
    }  # fmt: skip


def test_the_scan_that_shows_a_name_must_be_held_for_it(door: Door, canaries: tuple[Canary, ...]) -> None:
    (shown,) = (canary for canary in canaries if canary.refusal == BURNED_IN_TEXT)
    assert weigh(shown, Passage(BURNED_IN_TEXT, ())).is_clean
    for refusal in (None, "undecodable"):
        assert weigh(shown, Passage(refusal, ())).survivors == ("pixels",)


@pytest.mark.parametrize("batch", [f"batch {i}" for i in range(25)])
def test_the_look_finds_the_name_of_every_batch(door: Door, batch: str) -> None:
    (shown,) = (canary for canary in plant(door, batch) if canary.refusal == BURNED_IN_TEXT)
    assert take_in(door)(shown).refusal == BURNED_IN_TEXT


def test_a_canary_that_is_refused_tested_nothing(canaries: tuple[Canary, ...]) -> None:
    score = weigh(canaries[0], Passage("undecodable", ()))
    assert score.survivors == (NOT_TAKEN_IN,)
    assert score.n_died == 0
    assert not score.is_clean


Hole = Callable[[Scan, Row], object]
HOLES: dict[str, tuple[Hole, str]] = {
    "a row keeps the PatientID": (lambda scan, row: row | {"patient_key": scan.identity.patient_id}, "patient_id"),
    "a row keeps its digits alone": (lambda scan, _: int(re.sub(r"\D", "", scan.identity.patient_id)), "patient_id"),
    "a date is not moved": (lambda scan, _: {"acquired_on": scan.identity.acquired_on}, "study_date"),
    "a date is told in words": (lambda scan, _: repr(scan.identity.acquired_on), "study_date"),
    "a path keeps the series": (lambda scan, _: f"volumes/{scan.identity.series_uid}.nii.gz", "series_uid"),
    "a UID keeps its tail": (lambda scan, _: "2.25." + scan.identity.sop_uid.rpartition(".")[2], "instance_uid"),
}


@pytest.mark.parametrize(("hole", "kind"), HOLES.values(), ids=HOLES)
def test_a_hole_in_the_door_is_caught(door: Door, canaries: tuple[Canary, ...], hole: Hole, kind: str) -> None:
    score = send_through(canaries, take_in(door, hole))
    assert score.survivors == (kind,) or (kind == "patient_id" and set(score.survivors) == {kind, "scanner_model"})
    assert score.n_died < score.n_planted


def test_a_name_in_the_comments_of_a_volume_is_caught(door: Door, canaries: tuple[Canary, ...]) -> None:
    """NIfTI headers have room for 80 letters at byte 148, and the file is compressed."""

    def commented(scan: Scan, _: Row) -> bytes:
        plain = bytearray(gzip.decompress(encode_volume(Volume(np.zeros((1, 8, 8), np.int16), None))))
        who = next(c for c in canaries if any(scan.identity.patient_id == one.text for one in c.planted))
        name = next(one.text for one in who.planted if one.kind == "patient_name")
        plain[148 : 148 + len(name)] = name.encode()
        return gzip.compress(bytes(plain))

    assert "patient_name" in send_through(canaries, take_in(door, commented)).survivors


TELLINGS: dict[str, Callable[[str], object]] = {
    "as it is": lambda text: f"reading {text} failed",
    "upper case": str.upper,
    "lower case": str.lower,
    "last part first": lambda text: f"{text}, somebody",
    "latin-1": lambda text: text.encode("latin-1"),
    "utf-16": lambda text: text.encode("utf-16"),
    "upper case in utf-16": lambda text: text.upper().encode("utf-16-be"),
    "base64": lambda text: base64.b64encode(f"PN={text}\x00".encode()),
    "base64, one further": lambda text: base64.b64encode(f"P={text}!".encode()),
    "base64, two further": lambda text: base64.b64encode(f"={text}".encode()),
    "upper case in base64": lambda text: base64.b64encode(text.upper().encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, large": lambda text: text.encode().hex().upper(),
    "in an address": lambda text: "file:///in/" + text.replace("ü", "%C3%BC"),
    "json": lambda text: json.dumps({"detail": [text]}),
    "in a row": lambda text: {"detail": [None, 3, {"deep": (text,)}]},
    "as a key": lambda text: {text: 1},
    "compressed": lambda text: gzip.compress(text.encode()),
    "accents lost": lambda text: text.replace("ü", ""),
    "accents blanked": lambda text: text.replace("ü", " "),
    "accents spelt out": lambda text: text.replace("ü", "ue"),
    "accents taken off": lambda text: text.replace("ü", "u"),
}


@pytest.mark.parametrize("tell", TELLINGS.values(), ids=TELLINGS)
@pytest.mark.parametrize("has_accent", [False, True])
def test_a_name_is_found_however_it_is_written(
    canaries: tuple[Canary, ...], tell: Callable[[str], object], has_accent: bool
) -> None:
    names = [one.text for one in canaries[0].planted if one.kind == "patient_name"]
    name = next(name for name in names if name.isascii() is not has_accent)
    assert "patient_name" in survivors(canaries, ["header", tell(name), b"tail"])


@pytest.mark.parametrize("encoding", ["utf-8", "iso2022_jp", "shift_jis", "euc_jp", "utf-16-le"])
def test_a_name_in_another_alphabet_is_found_in_its_encodings(canaries: tuple[Canary, ...], encoding: str) -> None:
    name = planted_of(canaries, "multi_byte_name").text
    assert survivors(canaries, [name.encode(encoding)]) == ["multi_byte_name"]


@pytest.mark.parametrize(
    "spelt", ["%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%Y.%m.%d", "%Y-%m-%dT08:15:00", "datetime(%Y, %-m, %-d)"]
)
def test_a_birth_date_is_found_in_every_spelling(canaries: tuple[Canary, ...], spelt: str) -> None:
    born = datetime.strptime(planted_of(canaries, "birth_date").text, "%Y%m%d").replace(tzinfo=UTC)
    assert survivors(canaries, [f"on {born.strftime(spelt)}"]) == ["birth_date"]


def test_a_date_as_a_value_is_found_and_a_moved_one_is_not(canaries: tuple[Canary, ...]) -> None:
    text = planted_of(canaries, "study_date").text
    day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
    assert survivors(canaries, [{"acquired_on": day}]) == ["study_date"]
    assert survivors(canaries, [{"acquired_on": datetime(day.year, day.month, day.day, tzinfo=UTC)}]) == ["study_date"]
    assert survivors(canaries, [{"acquired_on": day - timedelta(weeks=60)}]) == []


def test_nothing_is_found_in_what_any_run_writes(canaries: tuple[Canary, ...]) -> None:
    """No false alarm: digits, keys, dates and random bytes of a real run are not a canary's."""
    noise = np.random.default_rng(0).bytes(500_000)
    rows = [{"series_key": noise[i : i + 10].hex(), "n_bytes": i, "day": date(2026, 1, 1)} for i in range(2000)]
    assert survivors(canaries, [noise, rows, "reading failed: the decoder gave up on this file", None]) == []


def test_the_reader_drops_a_kept_field_that_repeats_a_name_with_an_accent(canaries: tuple[Canary, ...]) -> None:
    headers = [asdict(open_scan(data).header) for canary in canaries for _, data in canary.files]
    assert survivors(canaries, [header["software"] for header in headers]) == []


def test_scores_add_up_and_tell_no_value(canaries: tuple[Canary, ...]) -> None:
    one = CanaryScore(n_planted=3, n_died=3)
    two = CanaryScore(n_planted=4, n_died=2, survivors=("birth_date", "patient_id"))
    both = one + two
    assert both == CanaryScore(n_planted=7, n_died=5, survivors=("birth_date", "patient_id"))
    assert both.summary == "5 of 7 planted identities died; survived: birth_date, patient_id"
    assert str(IdentityLeak("north", both.survivors)).startswith("north: planted identities survived the door (birth_")
    assert all(one.text not in repr(canaries) for canary in canaries for one in canary.planted)


def test_the_score_is_a_row_of_quality(north: Workspace) -> None:
    row = quality_row("north", "r1", CanaryScore(n_planted=7, n_died=7))
    north.lake.append(layout.QUALITY, rows_of(QUALITY, [row]), transaction="canaries")
    (found,) = north.lake.read(layout.QUALITY).to_pylist()
    assert (found["rule"], found["passed"]) == ("phi_canaries", True)
