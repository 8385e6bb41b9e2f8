"""Tables for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from platform_core.report.fleet_rows import SiteSummary


def print_fleet(rows: Sequence[SiteSummary]) -> None:
    """One row per site: what came, what was found, what was done, what it changed."""
    raise NotImplementedError
