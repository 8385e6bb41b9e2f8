"""M12: what a check of a site costs. M13: whether everything can be computed again from the append-only rows.

Both in real workspaces on disk, made for the purpose: rows of series, features, scores and labels with a planted
truth, and from there on the platform's own stages.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from platform_core import layout
from platform_core.manifest.workspace import Workspace
from platform_core.storage.tables import rows_of
from tests.benchmarks.detection.table import FROZEN, Cell, Line, Numbers, Row, of_metric, rate, total

if TYPE_CHECKING:
    from platform_core.shift.watch.streams import Watch

M12 = FROZEN["m12"]
SITE, STRATUM = "north", "ct/chest/plain/smooth"
FIRST_ON = datetime(2016, 1, 4, 6, tzinfo=UTC)


def cells(*, is_quick: bool) -> list[Cell]:
    """Nights after a short and a long history; a small hospital computed again."""
    days = M12["quick_days"] if is_quick else M12["days"]
    nights = [Cell(metric="M12", name=f"nights after {n} days", index=0, run=partial(nights_after, n)) for n in days]
    again = [
        Cell(metric="M13", name="computed again", index=i, run=computed_again)
        for i in range(1 if is_quick else M12["audits"])
    ]
    return [*nights, *again]


@contextmanager
def empty_workspace() -> Iterator[Workspace]:
    """A workspace with a key of its own, gone afterwards."""
    from platform_core.manifest.door import create_key
    from platform_core.manifest.workspace import create_workspace

    home = os.environ.get("SITEDRIFT_HOME")
    with tempfile.TemporaryDirectory(prefix="sitedrift-detection-") as folder:
        os.environ["SITEDRIFT_HOME"] = f"{folder}/home"
        try:
            yield create_workspace(Path(folder) / "w", key_fingerprint=create_key("w"))
        finally:
            os.environ.pop("SITEDRIFT_HOME")
            if home is not None:
                os.environ["SITEDRIFT_HOME"] = home


def nights_after(n_days: int, seed: int) -> Numbers:
    """What the watch of one site costs a night, with so many days of history behind it."""
    from platform_core.shift.watch.vigil import keep_watch, kept_watches

    with empty_workspace() as workspace:
        rng = np.random.default_rng(seed)
        take_in(workspace, rng, 0, n_days)
        keep_watch(workspace, SITE, None, run="history")
        nights, checks = [], []
        for night in range(n_days, n_days + M12["nights"]):
            before = kept_watches(workspace, SITE)[0]
            take_in(workspace, rng, night, night + 1)
            nights.append(_timed(partial(keep_watch, workspace, SITE, None, run=f"night{night}")))
            checks.append(_timed(partial(check, workspace, before.watch)))
        n_scans = (n_days + M12["nights"]) * M12["patients"]
        for table in (layout.RANK, layout.FEATURE):
            workspace.lake.compact(table)
        return {
            "night_ms": statistics.median(wall for wall, _ in nights),
            "night_cpu_ms": statistics.median(cpu for _, cpu in nights),
            "check_ms": statistics.median(wall for wall, _ in checks),
            "check_cpu_ms": statistics.median(cpu for _, cpu in checks),
            "rank_bytes": bytes_of(workspace, layout.RANK) / n_scans,
            "feature_bytes": bytes_of(workspace, layout.FEATURE) / n_scans,
            "watch_bytes": sum(len(workspace.objects.get(path)) for path in workspace.objects.list("watches")),
        }


def check(workspace: Workspace, watch: "Watch") -> bool:
    """Take in the ranks of a night, and say whether they alarm."""
    from platform_core.shift.watch.alarms import catch_up, judge

    return judge(catch_up(workspace, watch)).is_alarm


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time, all threads, ms."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def take_in(workspace: Workspace, rng: np.random.Generator, first: int, last: int) -> None:
    """Rows of the series and native features of some days, written in one go."""
    n = (last - first) * M12["patients"]
    numbers = np.arange(first * M12["patients"], last * M12["patients"])
    days = [(FIRST_ON + timedelta(days=int(number // M12["patients"]))).date() for number in numbers]
    keys = [f"{number * 2_654_435_761 % 2**32:08x}{number:08x}" for number in numbers.tolist()]
    about = [{"site": SITE, "series_key": key, "revision": 1, "run": "r"} for key in keys]
    told = {"modality": "CT", "stratum": STRATUM, "volume_uri": "v", "patient_known": True}
    series = [
        row | told | {"patient_key": f"p{key}", "observed_on": day, "ingested_at": FIRST_ON + timedelta(days=last)}
        for row, key, day in zip(about, keys, days, strict=True)
    ]
    rows = [
        row | {"recipe": layout.NATIVE, "stratum": STRATUM, "observed_on": day}
        for row, day in zip(about, days, strict=True)
    ]
    features = rows_of(workspace.lake.schemas[layout.FEATURE], rows)
    for feature in range(M12["features"]):
        features = features.append_column(f"f{feature:02d}", pa.array(rng.normal(size=n), pa.float64()))
    workspace.lake.append(
        layout.SERIES, rows_of(workspace.lake.schemas[layout.SERIES], series), transaction=f"s{first}"
    )
    workspace.lake.append(layout.FEATURE, features, transaction=f"f{first}")


def bytes_of(workspace: Workspace, table: str) -> int:
    """Size of the files of a table as it is now."""
    root = Path(workspace.uri) / layout.LAKE / table
    return sum((root / file).stat().st_size for file in workspace.lake.dataset(table).files)


def computed_again(seed: int) -> Numbers:
    """Ranks, alarms and findings of a small hospital, once night by night and once again from its rows."""
    with empty_workspace() as empty:
        workspace = hospital(empty, seed)
        found = {name: _equal(kept, again) for name, kept, again in _pairs(workspace)}
        return {key: value for name, (n, same) in found.items() for key, value in ((f"{name}_n", n), (name, same))}


def hospital(workspace: Workspace, seed: int) -> Workspace:
    """A site whose scanner gets noisier in the fourth month: watched and measured month by month."""
    from platform_core.shift.stage import measure_shift
    from platform_core.shift.watch.vigil import keep_watch
    from tests.shift.planted import Month, fill, prepare

    ready = prepare(workspace, "a", "b")
    fill(ready, Month(number=0, n=200))
    for month in range(4):
        noise = 13.0 if month == 3 else 10.0
        fill(ready, Month(site="b", number=month, n=150 + seed % 50, noise_hu=noise, stratum=STRATUM))
        at = datetime(2026, 1, 1 + month, tzinfo=UTC)
        keep_watch(ready, "b", "lesion", run=f"r{month}")
        for site in ("a", "b"):
            measure_shift(ready, site, target="lesion", run=f"r{month}", at=at)
    return ready


def _pairs(workspace: Workspace) -> Iterator[tuple[str, list[Any], list[Any]]]:
    yield ("tie_breaks", *_tie_breaks(workspace))
    yield ("ranks", *_ranks(workspace))
    yield ("watches", *_watches(workspace))
    yield from _findings(workspace)


def _tie_breaks(workspace: Workspace) -> tuple[list[Any], list[Any]]:
    from platform_core.shift.watch.conformal import tie_breaks

    rows = [row for row in workspace.lake.read(layout.RANK).to_pylist() if row["rank"] is not None]
    again = [float(tie_breaks([row["series_key"]], row["feature"], row["reference"])[0]) for row in rows]
    return [row["tie_break"] for row in rows], again


def _ranks(workspace: Workspace) -> tuple[list[Any], list[Any]]:
    """Every rank as it was written, and from the values before it by the definition, in SQL."""
    from platform_core.queries import load
    from platform_core.shift.watch.vigil import kept_watches

    written, expected = [], []
    for kept in kept_watches(workspace, "b"):
        scope = kept.watch.scope
        with workspace.lake.connect([layout.RANK]) as db:
            rows = load("platform_core.shift.watch", "audit").run(
                db, site=scope.site, stratum=scope.stratum, recipe=scope.recipe, reference=scope.reference, since=0
            )
        written += rows.column("written").to_pylist()
        expected += rows.column("expected").to_pylist()
    return written, expected


def _watches(workspace: Workspace) -> tuple[list[Any], list[Any]]:
    """The watches as they were kept month by month, and opened anew from `core__rank` alone, all at once."""
    from platform_core.shift.watch.alarms import catch_up, judge, open_watch
    from platform_core.shift.watch.streams import to_json
    from platform_core.shift.watch.vigil import kept_watches

    kept = [each.watch for each in kept_watches(workspace, "b")]
    for path in workspace.objects.list("watches"):
        workspace.objects.delete(path)
    again = []
    for watch in kept:
        steps = {stream.feature: stream.steps for stream in watch.streams}
        opened = open_watch(workspace, watch.scope, alpha=watch.alpha, n_opened=watch.n_opened, steps=steps)
        again.append(catch_up(workspace, opened))
    assert any(judge(watch).is_alarm for watch in kept), "the planted change was not found: this audits no alarm"
    told, repeated = ([str(judge(watch)) for watch in watches] for watches in (kept, again))
    return [*map(to_json, kept), *told], [*map(to_json, again), *repeated]


def _findings(workspace: Workspace) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Findings and their statistics, and the latest of each site measured again in a copy that has lost them."""
    from platform_core.shift.stage import measure_shift

    tables = (layout.FINDING, layout.SHIFT)
    with tempfile.TemporaryDirectory(prefix="sitedrift-audit-") as folder:
        copy = Path(folder) / "w"
        shutil.copytree(workspace.uri, copy)
        for table in tables:
            shutil.rmtree(copy / layout.LAKE / table)
        again = Workspace(str(copy))
        for site in ("a", "b"):
            measure_shift(again, site, target="lesion", run="again", at=datetime(2027, 1, 1, tzinfo=UTC))
        for table in tables:
            new = _rows(again, table)
            latest = {(row["site"], row["period_start"]) for row in new}
            yield table, [row for row in _rows(workspace, table) if (row["site"], row["period_start"]) in latest], new


def _rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    """Rows without the run that wrote them, in an order of their own."""
    rows = workspace.lake.read(table).drop_columns(["run"]).to_pylist()
    return sorted(rows, key=lambda row: repr([row[name] for name in sorted(row) if not isinstance(row[name], float)]))


def _equal(kept: Sequence[Any], again: Sequence[Any]) -> tuple[int, int]:
    """How many there are, and how many are the same to the last bit: `repr` tells every float apart, and NaN is NaN."""
    n = max(len(kept), len(again))
    return n, sum(repr(one) == repr(other) for one, other in zip(kept, again, strict=False))


def lines(rows: Sequence[Row]) -> list[Line]:
    """Costs, and shares that came out the same."""
    return [*_cost_lines(rows), *_audit_lines(rows)]


def _cost_lines(rows: Sequence[Row]) -> list[Line]:
    found = []
    for row in of_metric(rows, "M12"):
        about = row.numbers
        told = f"{M12['features']} features, {row.cell}"
        found += [
            Line(
                metric="M12",
                what=f"check of a site, {told}",
                value=about["check_cpu_ms"],
                bar=FROZEN["bars"]["M12_ms"],
                unit="ms",
                note=f"of processor time; {about['check_ms']:.0f} ms by the clock of a busy machine",
            ),
            Line(
                metric="M12",
                what=f"whole night: read, rank, write, check, {told}",
                value=about["night_cpu_ms"],
                unit="ms",
                note=f"of processor time; {about['night_ms']:.0f} ms by the clock",
            ),
            Line(
                metric="M12",
                what=f"kept per scan: ranks, {told}",
                value=about["rank_bytes"],
                unit="bytes",
                note=f"features {about['feature_bytes']:.0f} bytes; the watch itself {about['watch_bytes']:.0f} in all",
            ),
        ]
    return found


def _audit_lines(rows: Sequence[Row]) -> list[Line]:
    mine = of_metric(rows, "M13")
    names = [name for name in (mine[0].numbers if mine else {}) if not name.endswith("_n")]
    return [
        rate(
            "M13",
            f"computed again, the same to the last bit: {name}",
            total(mine, name),
            total(mine, f"{name}_n"),
            bar=FROZEN["bars"]["M13"],
            way="at least",
        )
        for name in names
    ]
