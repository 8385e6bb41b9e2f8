"""How often is each verdict of the demo right? Many phantom seeds, nothing scripted.

    python -m tests.benchmarks.verdicts --seeds 20 --processes 2

Every seed writes its own DICOM, is ingested, trained, measured and decided from nothing, by
the same functions as `sitedrift demo` but without the orchestrator. Rows go to a CSV as they
come, so a run that was cut off goes on where it stopped.
"""

import argparse
import csv
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

EXPECTED = {
    (1, "north"): "none",
    (1, "east"): "none",
    (1, "west"): "none",
    (2, "north"): "none",
    (2, "east"): "label",
    (2, "west"): "covariate_acquisition",
}
COLUMNS = ("seed", "scale", "month", "site", "kind", "size", "actions", "statuses", "log_loss_before",
           "log_loss_after", "auroc_before", "auroc_after", "seconds")  # fmt: skip


def main() -> None:
    """Run the seeds that the CSV lacks, then print how often each verdict was right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("tests/benchmarks/verdicts.csv"))
    args = parser.parse_args()
    rows = _read(args.out)
    known = {int(row["seed"]) for row in rows if float(row["scale"]) == args.scale}
    wanted = [seed for seed in range(args.first, args.first + args.seeds) if seed not in known]
    os.environ.update(OMP_NUM_THREADS="1", GX_ANALYTICS_ENABLED="false")
    with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for made in pool.map(partial(tell, scale=args.scale), wanted):
            _append(args.out, made)
    seeds = range(args.first, args.first + args.seeds)
    report([row for row in _read(args.out) if float(row["scale"]) == args.scale and int(row["seed"]) in seeds])


def tell(seed: int, scale: float) -> list[dict[str, Any]]:
    """Live through both months of one seed; one row per site and month."""
    from flows.demo import SOURCE, TARGET, prepare
    from platform_core import clock
    from platform_core.manifest.labels import import_labels
    from platform_core.phantom.cohort import default_cohorts
    from platform_core.phantom.write import write_month
    from platform_core.report.fleet_rows import fleet_rows
    from tests.benchmarks import plain

    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["SITEDRIFT_HOME"] = f"{place}/home"
        workspace, cohorts = prepare(Path(place) / "demo", seed), default_cohorts(scale)
        sites = [SOURCE, *sorted(set(cohorts) - {SOURCE})]
        for month in (1, 2):
            started, at = time.monotonic(), clock.now()
            run = clock.new_run(at)
            sent = write_month(Path(place) / "demo" / "incoming", month=month, seed=seed, cohorts=cohorts)
            for site in sites:
                plain.take_in(workspace, site, run, at)
                import_labels(workspace, site, TARGET, sent.label_files[site], run=run, at=at)
            if month == 1:
                plain.train(workspace, TARGET, run, at)
            for site in sites:
                plain.decide(workspace, site, TARGET, run, at)
            seconds = round(time.monotonic() - started)
            rows += [_row(seed, scale, month, summary, seconds) for summary in fleet_rows(workspace)]
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    """Print the share of right verdicts per site and month, with 95 % intervals, and what was done."""
    from scipy.stats import binomtest

    print(f"{len({row['seed'] for row in rows})} seeds, scale {rows[0]['scale'] if rows else '-'}")
    for (month, site), expected in EXPECTED.items():
        mine = [row for row in rows if (int(row["month"]), row["site"]) == (month, site)]
        kinds = Counter(row["kind"] for row in mine)
        n, right = len(mine), kinds[expected]
        interval = binomtest(right, n).proportion_ci() if n else None
        share = f"{right}/{n} [{interval.low:.2f}, {interval.high:.2f}]" if interval else "0/0"
        others = ", ".join(f"{kind} {count}" for kind, count in kinds.items() if kind != expected)
        instead = f"; instead: {others}" if others else ""
        print(f"month {month} {site:6} expected {expected:22} right {share}{instead}")
        for actions, count in Counter((row["actions"], row["statuses"]) for row in mine).items():
            print(f"    {count:3} x {actions[0] or 'nothing'} ({actions[1]})")


def _row(seed: int, scale: float, month: int, summary: Any, seconds: int) -> dict[str, Any]:
    finding, before, after = summary.finding, summary.before, summary.after
    taken = [one for one in summary.actions if one.action != "none"]
    return {
        "seed": seed,
        "scale": scale,
        "month": month,
        "site": summary.site,
        "kind": finding.kind if finding else "",
        "size": f"{finding.size.value:.3f}" if finding and finding.size else "",
        "actions": "+".join(one.action for one in taken),
        "statuses": "+".join(one.status for one in taken),
        "log_loss_before": _value(before, "log_loss"),
        "log_loss_after": _value(after, "log_loss"),
        "auroc_before": _value(before, "auroc"),
        "auroc_after": _value(after, "auroc"),
        "seconds": seconds,
    }


def _value(measures: Any, name: str) -> str:
    estimate = getattr(measures, name, None)
    return f"{estimate.value:.4f}" if estimate else ""


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _append(file: Path, rows: list[dict[str, Any]]) -> None:
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        if is_new:
            table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
