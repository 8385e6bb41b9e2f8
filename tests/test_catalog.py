import pickle
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from platform_core import errors
from platform_core.catalog import Catalog
from platform_core.errors import DuplicateName, PlatformError, UnknownName


@dataclass(frozen=True)
class Thing:
    name: str
    value: int = 0


def test_plug_ins_are_listed_in_name_order() -> None:
    assert list(Catalog("thing", [Thing("b"), Thing("a")])) == ["a", "b"]


def test_an_unknown_name_says_what_exists() -> None:
    with pytest.raises(UnknownName, match="no thing named 'c'; known: a, b"):
        Catalog("thing", [Thing("a"), Thing("b")])["c"]


def test_two_plug_ins_of_one_name_are_refused() -> None:
    with pytest.raises(DuplicateName):
        len(Catalog("thing", [Thing("a", 1), Thing("a", 2)]))


SAMPLES: list[PlatformError] = [
    errors.UnreadableScan("truncated", "pixel data end early"),
    errors.GeometryMismatch("grid", (1, 1, 1), (1, 1, 2)),
    errors.EmptySample("psi", 2, 0),
    errors.SchemaMismatch("core__series", ["site"], ["modality"]),
    errors.LedgerOpen("north", "arrival", 3, 2),
    errors.IdentityLeak("north", ["birth_date", "private_value"]),
    errors.UnknownName("harmonizer", "nyull", ["nyul"]),
    errors.DuplicateName("statistic", "psi"),
    errors.BadSetting("sitedrift.toml", "shift.alpha", "expected a number", "correct it"),
    errors.NotAWorkspace("somewhere"),
    errors.WrongKey("of this workspace", "does not match"),
    errors.NoSuchPlace("folder", "a folder of scans", "correct the path"),
    errors.StorageUnavailable("s3://bucket", "timeout"),
    errors.TrainingUnderWay("lesion", "by hand", datetime(2026, 3, 2, 6, tzinfo=UTC), "try again later"),
    errors.TargetsStopped({"lesion": errors.EmptySample("psi", 2, 0), "nodule": errors.DeviceLost("gone")}),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_errors_cross_process_borders_whole(error: PlatformError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_only_an_unavailable_world_is_worth_a_retry(error: PlatformError) -> None:
    assert error.retryable == isinstance(error, errors.Unavailable)


def test_every_error_is_drawn_in_the_tree() -> None:
    names = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, PlatformError)}
    assert {n for n in names if n not in (errors.__doc__ or "")} == set()
