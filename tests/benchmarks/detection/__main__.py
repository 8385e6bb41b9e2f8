"""The experiment behind every claim about shift detection: M1 to M13, with bars, beside ordinary practice.

    python -m tests.benchmarks.detection --quick            under ten minutes, from nothing
    python -m tests.benchmarks.detection                    what the committed CSV lacks; about three hours from nothing
    python -m tests.benchmarks.detection --only M1 M3 --budget-min 20
    python -m tests.benchmarks.detection --print            only prints what the CSV holds

Every cell becomes a row of `detection.csv` as soon as it is done, so a run that was cut off goes on where it stopped.
Rows of quick runs and of development (other seeds) lie in files of their own and are never mixed with those.
"""

import argparse
import math
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tests.benchmarks.detection.table import FROZEN, HERE, Cell, Line, Row, print_lines, read_rows, run_cells

MODULES = ("streams", "delays", "audit", "oneshot", "kinds", "labels", "transported")
"""Each offers `cells` and `lines`, as `table` says."""
FILES = {
    "reported": HERE / "detection.csv",
    "quick": HERE / ".cache" / "quick.csv",
    "development": HERE / ".cache" / "development.csv",
}


def main() -> int:
    """Run what is lacking, then print; 1 if a cell failed or a bar is missed."""
    args = asked()
    kind = "development" if args.development else "quick" if args.quick else "reported"
    file = args.out or FILES[kind]
    offered = modules()
    n_left = n_failed = 0
    if not args.print:
        cells = [cell for module in offered for cell in cells_of(module, is_quick=args.quick, only=args.only)]
        cells = [cell for cell in cells if args.cells in cell.name]
        until = time.monotonic() + 60 * args.budget_min
        n_left, n_failed = run_cells(cells, file, first_seed=FROZEN["seeds"][kind], until=until)
    lines = report(offered, read_rows(file), args.only)
    print(f"\n{n_left} cells are still to be run, {n_failed} failed" if n_left or n_failed else "")
    return int(bool(n_failed) or any(line.is_met is False for line in lines))


def asked() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions, rows kept apart")
    parser.add_argument("--development", action="store_true", help="seeds of development, rows kept apart")
    parser.add_argument("--only", nargs="+", default=[], metavar="M", help="metrics")
    parser.add_argument("--cells", default="", metavar="TEXT", help="cells whose name holds this text")
    parser.add_argument("--budget-min", type=float, default=math.inf, help="begin no cell after so many minutes")
    parser.add_argument("--print", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help="another CSV")
    return parser.parse_args()


def modules() -> list[ModuleType]:
    """The modules that can be imported; of one that cannot it is said why, and the others go on."""
    found = []
    for name in MODULES:
        try:
            found.append(import_module(f"tests.benchmarks.detection.{name}"))
        except ImportError as error:
            print(f"the metrics of {name}.py are not measured: {error}", file=sys.stderr)
    return found


def cells_of(module: ModuleType, *, is_quick: bool, only: list[str]) -> list[Cell]:
    """The cells of a module that are wanted."""
    cells: list[Cell] = module.cells(is_quick=is_quick)
    return [cell for cell in cells if not only or cell.metric in only]


def report(offered: list[ModuleType], rows: list[Row], only: list[str]) -> list[Line]:
    """Print the table and give its lines back."""
    lines: list[Line] = [line for module in offered for line in module.lines(rows)]
    lines = [line for line in lines if not only or line.metric in only]
    commits = sorted({row.commit for row in rows})
    print(f"\n{len(rows)} rows of commits {', '.join(commits) or 'none'}\n")
    print_lines(lines)
    missed = [line.what for line in lines if line.is_met is False]
    print(f"\n{sum(line.is_met is True for line in lines)} bars met, {len(missed)} missed")
    return lines


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
