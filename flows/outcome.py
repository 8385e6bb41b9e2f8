"""What a run came to, in a few lines and an exit code."""

from dataclasses import dataclass
from typing import Any

from platform_core.errors import PlatformError
from platform_core.manifest.ledger import arrival_counts
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions

FOR_A_PERSON = ("request_labels", "hold")
OPEN = ("waiting", "proposed", "refused")
"""How a decision may stand that a person should look at; one in the shadow goes on by itself."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The ledger of one run and what was decided in it."""

    run: str
    sites: tuple[str, ...]
    arrivals: list[dict[str, Any]]
    decided: list[dict[str, Any]]
    stopped: dict[str, Exception]
    """What kept a site from getting to its end."""
    has_written: bool
    """Whether any table has changed."""

    @property
    def needs_a_person(self) -> bool:
        """Something is in quarantine, refused or waiting."""
        is_held = any(row["outcome"] == "quarantined" for row in self.arrivals)
        is_open = any(row["action"] in FOR_A_PERSON or row["status"] in OPEN for row in self.decided)
        return is_held or is_open or bool(self.stopped)

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for a program."""
        stopped = {site: _sentence(error) for site, error in self.stopped.items()}
        return {
            "run": self.run,
            "sites": self.sites,
            "arrivals": self.arrivals,
            "decisions": self.decided,
            "has_written": self.has_written,
            "stopped": stopped,
        }

    @property
    def text(self) -> str:
        """All of it, for a person."""
        lines = [self._of_site(site) for site in self.sites]
        if not self.has_written:
            lines.append("nothing was written")
        lines += [f"{row['site']}: {row['action']} ({row['status']}): {row['because']}" for row in self.decided]
        lines += [f"{site}: stopped: {_sentence(error)}" for site, error in self.stopped.items()]
        if any(row["outcome"] == "quarantined" for row in self.arrivals):
            lines.append("Look at what is held back: sitedrift quarantine list")
        return "\n".join(lines)

    def _of_site(self, site: str) -> str:
        counts: dict[str, int] = {}
        for row in self.arrivals:
            if row["site"] == site:
                counts[row["outcome"]] = counts.get(row["outcome"], 0) + row["n"]
        if not counts:
            return f"{site}: nothing new arrived"
        parts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
        return f"{site}: {sum(counts.values())} arrivals = {parts}"


def of_run(
    workspace: Workspace, run: str, sites: list[str], stopped: dict[str, Exception], *, has_written: bool
) -> Outcome:
    """What one run wrote."""
    arrivals = arrival_counts(workspace, run).to_pylist()
    decided = [row for row in decisions(workspace).to_pylist() if row["run"] == run and row["action"] != "none"]
    return Outcome(run, tuple(sites), arrivals, decided, stopped, has_written)


def _sentence(error: Exception) -> str:
    """A deliberate error speaks for itself; any other is a defect of ours and says its type."""
    return str(error) if isinstance(error, PlatformError) else f"unexpected {type(error).__name__}"
