"""What a run came to, in a few lines and an exit code."""

from dataclasses import dataclass
from typing import Any

from platform_core.manifest.ledger import arrival_counts
from platform_core.manifest.workspace import Workspace
from platform_core.policy.record import decisions

FOR_A_PERSON = ("request_labels", "hold")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The ledger of one run and what was decided in it."""

    run: str
    sites: tuple[str, ...]
    arrivals: list[dict[str, Any]]
    decided: list[dict[str, Any]]

    @property
    def needs_a_person(self) -> bool:
        """Something is in quarantine, refused or waiting."""
        held = any(row["outcome"] == "quarantined" for row in self.arrivals)
        return held or any(row["action"] in FOR_A_PERSON or row["status"] != "done" for row in self.decided)

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for a program."""
        return {"run": self.run, "sites": self.sites, "arrivals": self.arrivals, "decisions": self.decided}

    @property
    def text(self) -> str:
        """All of it, for a person."""
        lines = [self._of_site(site) for site in self.sites]
        lines += [f"{row['site']}: {row['action']} ({row['status']}): {row['because']}" for row in self.decided]
        if any(row["outcome"] == "quarantined" for row in self.arrivals):
            lines.append("Look at what is held back: sitedrift quarantine list")
        return "\n".join(lines)

    def _of_site(self, site: str) -> str:
        counts: dict[str, int] = {}
        for row in self.arrivals:
            if row["site"] == site:
                counts[row["outcome"]] = counts.get(row["outcome"], 0) + row["n"]
        if not counts:
            return f"{site}: nothing new arrived; nothing was written"
        parts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
        return f"{site}: {sum(counts.values())} arrivals = {parts}"


def of_run(workspace: Workspace, run: str, sites: list[str]) -> Outcome:
    """What one run wrote."""
    arrivals = arrival_counts(workspace, run).to_pylist()
    decided = [row for row in decisions(workspace).to_pylist() if row["run"] == run and row["action"] != "none"]
    return Outcome(run, tuple(sites), arrivals, decided)
