"""The experiment behind every claim about adaptation: M7 to M9, with bars, beside what others would do every time.

    python -m tests.benchmarks.adaptation --quick            under ten minutes, from nothing
    python -m tests.benchmarks.adaptation                    what the committed CSV lacks; hours from nothing
    python -m tests.benchmarks.adaptation --only "psf 1" gamma --budget-min 20
    python -m tests.benchmarks.adaptation --print            only prints what the CSV holds

Every cell becomes a row of `adaptation.csv` as soon as it is done, so a run that was cut off goes on where it stopped.
Rows of quick runs and of development (other seeds, without the family that is held out) lie in files of their own.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

from tests.benchmarks.adaptation.sizes import FROZEN
from tests.benchmarks.detection.table import Cell, Row, print_lines, read_rows, run_cells

HERE = Path(__file__).parent
FILES = {
    "reported": HERE / "adaptation.csv",
    "quick": HERE / ".cache" / "quick.csv",
    "development": HERE / ".cache" / "development.csv",
}


def main() -> int:
    """Run what is lacking, then print; 1 if a cell failed or a bar is missed."""
    args = asked()
    kind = "development" if args.development else "quick" if args.quick else "reported"
    file = args.out or FILES[kind]
    n_left = n_failed = 0
    if not args.print:
        until = time.monotonic() + 60 * args.budget_min
        wanted = wanted_cells(args.only, is_quick=args.quick, is_development=args.development)
        for cells in wanted:
            left, failed = run_cells(cells, file, first_seed=FROZEN["seeds"][kind], until=until)
            n_left, n_failed = n_left + left, n_failed + failed
    is_missed = report(read_rows(file))
    print(f"\n{n_left} cells are still to be run, {n_failed} failed" if n_left or n_failed else "")
    return int(bool(n_failed) or is_missed)


def asked() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few patients and one repetition, rows kept apart")
    parser.add_argument("--development", action="store_true", help="seeds of development, rows kept apart")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="cells whose name begins with a text")
    parser.add_argument("--budget-min", type=float, default=math.inf, help="begin no cell after so many minutes")
    parser.add_argument("--print", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help="another CSV")
    return parser.parse_args()


def wanted_cells(only: list[str], *, is_quick: bool, is_development: bool) -> list[list[Cell]]:
    """Cells that are asked for, those that are quoted first; in development none of the family that is held out."""
    from tests.benchmarks.adaptation.arms import QUOTED, budget_of, cells
    from tests.benchmarks.detection.operators import HELD_OUT

    offered = [cell for cell in cells(is_quick=is_quick) if not (is_development and cell.name.startswith(HELD_OUT))]
    wanted = [cell for cell in offered if not only or cell.name.startswith(tuple(only))]
    return [[cell for cell in wanted if (budget_of(cell.name) in QUOTED) == is_quoted] for is_quoted in (True, False)]


def report(rows: list[Row]) -> bool:
    """Print the table; whether a bar is missed."""
    from tests.benchmarks.adaptation.report import lines

    found = lines(rows)
    print(f"\n{len(rows)} rows of commits {', '.join(sorted({row.commit for row in rows})) or 'none'}\n")
    print_lines(found)
    n_missed = sum(line.is_met is False for line in found)
    print(f"\n{sum(line.is_met is True for line in found)} bars met, {n_missed} missed")
    return bool(n_missed)


if __name__ == "__main__":
    sys.exit(main())
