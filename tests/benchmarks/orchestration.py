"""What Prefect adds to a thousand small series: the same stages as a flow, and as plain functions.

    python -m tests.benchmarks.orchestration [--series 1000] [--rounds 3]

Every round makes two equal workspaces and measures and harmonizes each series in them, once by the flow's own
stages and once by the functions they call, in the same number of threads. The Prefect server is started beforehand and
lives in a process of its own. Prints wall time and the CPU time of this process, and what the flow adds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from platform_core import layout
from platform_core.features.stage import measure_shard
from platform_core.harmonize.stage import fit_site_recipe, harmonize_shard
from platform_core.imaging.volume import Geometry, Volume
from platform_core.manifest import stages
from platform_core.manifest.door import create_key
from platform_core.manifest.schemas import SERIES
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.settings import Environment, SiteSettings
from platform_core.storage.tables import rows_of

SITE, TARGET, RUN = "north", "lesion", "20260301T060000-bench"
AT = datetime(2026, 3, 1, 6, tzinfo=UTC)
RECIPE = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"

[[target.lesion.recipe]]
harmonizer = "resample"
spacing_mm = [1.5, 1.5, 3.0]

[[target.lesion.recipe]]
harmonizer = "clip_intensity"
low = -150.0
high = 250.0

[[target.lesion.recipe]]
harmonizer = "histogram_match"
"""
Job = Callable[[Workspace, str], None]


def main() -> None:
    """Let both take turns, print medians."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--series", type=int, default=1000)
    asked.add_argument("--rounds", type=int, default=3)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="sitedrift-bench-") as folder:
        os.environ |= {"SITEDRIFT_HOME": f"{folder}/home", "PREFECT_HOME": f"{folder}/prefect"}
        os.environ |= {
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
            report(options.series, options.rounds, Path(folder))


def report(n_series: int, rounds: int, folder: Path) -> None:
    """Wall and CPU seconds of either way, the flow's surplus last."""
    jobs: dict[str, Job] = {"plain functions": plainly, "Prefect flow": as_a_flow}
    as_a_flow(*ready(folder / "first", 8))  # imports, the first flow of a process
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            workspace, recipe = ready(folder / f"{number}-{name.split()[0]}", n_series)
            wall, cpu = time.perf_counter(), time.process_time()
            job(workspace, recipe)
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            done = workspace.lake.read(layout.STAGE).to_pylist()
            assert sum(row["outcome"] == "done" for row in done) == 6 * n_series, "every series at every stage"
    print(f"{n_series} series, {Environment().n_workers} threads, medians of {rounds} rounds")
    medians = {name: [statistics.median(pair[k] for pair in pairs) for k in (0, 1)] for name, pairs in taken.items()}
    for name, (wall, cpu) in medians.items():
        print(f"  {name:16s} {wall:7.2f} s wall, {cpu:7.2f} s CPU of this process")
    surplus = [100 * (medians["Prefect flow"][k] / medians["plain functions"][k] - 1) for k in (0, 1)]
    fixed = statistics.median(_empty_flow() for _ in range(3))
    rest = 100 * ((medians["Prefect flow"][0] - fixed) / medians["plain functions"][0] - 1)
    print(f"  the flow adds {surplus[0]:+.1f} % wall, {surplus[1]:+.1f} % CPU")
    print(f"  an empty flow takes {fixed:.2f} s, once per run; without it {rest:+.1f} % wall")


def _empty_flow() -> float:
    from prefect import flow

    @flow(name="empty")
    def empty() -> None:
        """Nothing."""

    start = time.perf_counter()
    empty()
    return time.perf_counter() - start


def plainly(workspace: Workspace, recipe: str) -> None:
    """Shards in a pool of threads."""

    def shards(stage: str, by: str, after: tuple[str, str]) -> list[tuple[str, ...]]:
        return stages.shards(
            stages.pending(workspace, SITE, stage, recipe=by, after=after), workspace.settings.shard_size
        )

    with ThreadPoolExecutor(Environment().n_workers) as pool:
        for by, after in ((layout.NATIVE, ("unique", layout.NATIVE)), (recipe, ("harmonize", recipe))):
            if by != layout.NATIVE:
                todo = shards("harmonize", by, ("quality", layout.NATIVE))
                list(pool.map(lambda keys: harmonize_shard(workspace, SITE, keys, recipe=recipe, run=RUN), todo))
            todo = shards("feature", by, after)
            list(pool.map(lambda keys, by=by: measure_shard(workspace, SITE, keys, recipe=by, run=RUN), todo))


def as_a_flow(workspace: Workspace, recipe: str) -> None:
    """The same by the stages that the nightly flow runs."""
    from prefect import flow

    from flows import stages as steps
    from flows.run import RUNNER
    from tasks import series, site

    @flow(name="bench", task_runner=RUNNER)  # type: ignore[arg-type]
    def bench(uri: str) -> None:
        owed = site.plan(uri, SITE, "feature", layout.NATIVE, ("unique", layout.NATIVE))
        steps._over(series.measure_shard, owed, uri, SITE, recipe=layout.NATIVE, run=RUN)
        steps.harmonize(uri, SITE, recipe, stages.pending(workspace, SITE, "harmonize", recipe=recipe), RUN)

    bench(workspace.uri)


def ready(folder: Path, n_series: int) -> tuple[Workspace, str]:
    """A workspace in which every series has passed quality, and its fitted recipe."""
    workspace = create_workspace(folder, key_fingerprint=create_key(folder.name))
    file = Path(workspace.uri) / layout.SETTINGS
    file.write_text(file.read_text(encoding="utf-8") + RECIPE, encoding="utf-8")
    add_site(workspace, SITE, SiteSettings(path="/nowhere"))
    workspace = open_workspace(workspace.uri)
    keys = [f"s{number:05}" for number in range(n_series)]
    rows = [_arrived(workspace, key, number) for number, key in enumerate(keys)]
    workspace.lake.append(layout.SERIES, rows_of(SERIES, rows), transaction="series")
    verdicts = [stages.Verdict(series_key=key, revision=1) for key in keys]
    for stage in ("ingest", "unique", "quality"):
        stages.record_stage(workspace, SITE, stage, verdicts, run=RUN)
    return workspace, fit_site_recipe(workspace, SITE, TARGET, keys, run=RUN, at=AT, reference=None)


def _arrived(workspace: Workspace, key: str, seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    hu = np.full((24, 64, 64), -1000.0)
    hu[:, 10:54, 8:56] = 40.0
    hu[:, 24:40, 20:40] = 110.0
    volume = Volume((hu + rng.normal(0, 15, hu.shape)).astype(np.int16), Geometry((1.0, 1.0, 3.0)))
    uri = layout.volume_path(SITE, layout.NATIVE, key, 1)
    facts = {"site": SITE, "series_key": key, "revision": 1, "patient_key": key, "modality": "CT", "stratum": "CT"}
    grid = {"n_x": 64, "n_y": 64, "n_z": 24, "n_t": 1, "spacing_x_mm": 1.0, "spacing_y_mm": 1.0, "spacing_z_mm": 3.0}
    sha256 = workspace.write_volume(uri, volume, durable=False)
    return facts | grid | {"observed_on": date(2026, 2, 1), "volume_uri": uri, "volume_sha256": sha256, "run": RUN}


if __name__ == "__main__":
    main()
