"""Cells, their rows in a CSV, and the lines that are printed of them.

A cell is the smallest piece of work that is worth keeping: it runs in seconds to a few minutes, and what it found is
one row. A module of the experiment offers two functions, and `__main__` needs no more:

    def cells(*, is_quick: bool) -> list[Cell]        what there is to run
    def lines(rows: Sequence[Row]) -> list[Line]      what the rows of its own metrics say

`Cell(metric="M1", name="all nuisances", index=0, run=run)` calls `run(seed) -> {"alarmed": 3, "n": 100}`; the seed is
`index` plus the first seed of the frozen file, so that seeds of development are never those reported. Numbers are
finite, infinite or NaN; a rate is two of them, how many and of how many, so that rows of several seeds add up.
"""

import csv
import math
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
FROZEN = tomllib.loads((HERE / "frozen.toml").read_text(encoding="utf-8"))
"""Thresholds, bars and first seeds, frozen before the last run."""
COLUMNS = ("metric", "cell", "seed", "commit", "seconds", "numbers")
Numbers = Mapping[str, float]
Way = Literal["at most", "at least"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One piece of work."""

    metric: str
    """M1 to M13."""
    name: str
    """What is done, unique in its metric; without seed."""
    index: int
    """Which repetition, from 0."""
    run: Callable[[int], Numbers]
    """From a seed to numbers; the same seed gives the same numbers on any machine, but for times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a cell found."""

    metric: str
    cell: str
    seed: int
    commit: str
    """Of the working tree that ran it; with a `+` if that had changes."""
    seconds: float
    numbers: Numbers

    @property
    def key(self) -> tuple[str, str, int]:
        """No cell runs twice."""
        return self.metric, self.cell, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the printed table."""

    metric: str
    what: str
    value: float
    low: float = math.nan
    high: float = math.nan
    """Of the value, 95 %."""
    n: int = 0
    """Repetitions that the value rests on."""
    bar: float | None = None
    way: Way = "at most"
    unit: str = ""
    beside: Mapping[str, float] = field(default_factory=dict)
    """The same number of ordinary practice, by name."""
    note: str = ""
    """What a reader must know; for a miss, why."""

    @property
    def is_met(self) -> bool | None:
        """Whether the value reaches its bar; None without a bar or a value."""
        if self.bar is None or math.isnan(self.value):
            return None
        return self.value <= self.bar if self.way == "at most" else self.value >= self.bar


def rate(metric: str, what: str, k: float, n: float, **more: object) -> Line:
    """The line of a rate, k of n, with its Clopper-Pearson interval."""
    low, high = clopper_pearson(int(k), int(n))
    value = k / n if n else math.nan
    return Line(metric=metric, what=what, value=value, low=low, high=high, n=int(n), **more)  # type: ignore[arg-type]


def clopper_pearson(k: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share of which k of n were seen; (0, 1) if n is 0.

    Source:
        Clopper & Pearson 1934, Biometrika 26(4), doi:10.1093/biomet/26.4.404.
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def total(rows: Iterable[Row], name: str) -> float:
    """Sum of one number over rows; a row without it counts nothing."""
    return math.fsum(row.numbers.get(name, 0.0) for row in rows)


def of_metric(rows: Iterable[Row], metric: str, cell: str | None = None) -> list[Row]:
    """Rows of a metric, or of one of its cells, in order of seed."""
    mine = [row for row in rows if row.metric == metric and cell in (None, row.cell)]
    return sorted(mine, key=lambda row: (row.cell, row.seed))


def read_rows(file: Path) -> list[Row]:
    """Every row of a CSV; none if there is no file. Of a cell that was run again the last row counts."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [_row(facts) for facts in csv.DictReader(lines)]
    return list({row.key: row for row in rows}.values())


def write_row(file: Path, row: Row) -> None:
    """Append a row, at once and whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not file.exists()
    numbers = " ".join(f"{name}={float(value)!r}" for name, value in row.numbers.items())
    with file.open("a", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        if is_new:
            table.writerow(COLUMNS)
        table.writerow([row.metric, row.cell, row.seed, row.commit, f"{row.seconds:.1f}", numbers])


def run_cells(cells: Sequence[Cell], file: Path, *, first_seed: int, until: float = math.inf) -> tuple[int, int]:
    """Run the cells that the CSV lacks, first repetitions first, and write each row as it comes.

    Args:
        cells: All that there are.
        file: The CSV.
        first_seed: Of repetition 0.
        until: `time.monotonic()` from which on no cell is begun.

    Returns:
        Cells that are still to be run, and cells that failed.
    """
    known, commit = {row.key for row in read_rows(file)}, commit_now()
    due = [cell for cell in cells if (cell.metric, cell.name, first_seed + cell.index) not in known]
    n_failed = 0
    for i, cell in enumerate(sorted(due, key=lambda cell: cell.index)):
        if time.monotonic() >= until:
            return len(due) - i, n_failed
        n_failed += not _run_cell(cell, file, first_seed + cell.index, commit)
    return 0, n_failed


def _run_cell(cell: Cell, file: Path, seed: int, commit: str) -> bool:
    """Run one cell; one that fails says so and never stops the others."""
    started = time.monotonic()
    try:
        numbers = cell.run(seed)
    except Exception as error:  # noqa: BLE001 - whatever a cell dies of, the next one runs
        print(f"{cell.metric} {cell.name} seed {seed} FAILED: {type(error).__name__}: {error}", flush=True)
        return False
    seconds = time.monotonic() - started
    write_row(
        file,
        Row(metric=cell.metric, cell=cell.name, seed=seed, commit=commit, seconds=seconds, numbers=numbers),
    )
    print(f"{cell.metric} {cell.name} seed {seed}: {seconds:.1f} s", flush=True)
    return True


def commit_now() -> str:
    """The commit of the code that runs, with a `+` if the working tree has other code; `unknown` outside git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        root = git("rev-parse", "--show-toplevel")
        code = [f"{root}/{part}" for part in ("platform_core", "tests/benchmarks/*/*.py")]
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def print_lines(lines: Sequence[Line]) -> None:
    """The table: every line with its interval and bar, a miss marked plainly, ordinary practice below."""
    for line in sorted(lines, key=lambda line: int("0" + "".join(filter(str.isdigit, line.metric)))):
        verdict = {None: "    ", True: "met ", False: "MISS"}[line.is_met]
        print(f"{line.metric:4}{verdict} {line.what:66} {_told(line)}".rstrip())
        for name, value in line.beside.items():
            if not math.isnan(value):
                print(f"{'':9}   {name:64} {_number(value, line.unit)}")
        if line.note:
            print(f"{'':9}   {line.note}")


def _told(line: Line) -> str:
    interval = "" if math.isnan(line.low) else f" [{_number(line.low)}, {_number(line.high)}]"
    bar = "" if line.bar is None else f"  {line.way} {_number(line.bar, line.unit)}"
    n = f"  n={line.n}" if line.n else ""
    return f"{_number(line.value, line.unit)}{interval}{bar}{n}"


def _number(value: float, unit: str = "") -> str:
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "never"
    digits = f"{value:.3f}" if abs(value) < 10 and value != int(value) else f"{value:.4g}"
    return f"{digits} {unit}".rstrip()


def _row(facts: Mapping[str, str]) -> Row:
    numbers = dict(pair.split("=", 1) for pair in facts["numbers"].split())
    return Row(
        metric=facts["metric"],
        cell=facts["cell"],
        seed=int(facts["seed"]),
        commit=facts["commit"],
        seconds=float(facts["seconds"]),
        numbers={name: float(value) for name, value in numbers.items()},
    )
