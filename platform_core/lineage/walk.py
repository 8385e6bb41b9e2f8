"""The steps from a thing to what it was made from; each thing is taken apart once."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core import layout
from platform_core.errors import BadInput
from platform_core.learn import registry
from platform_core.learn.registry import ModelRef
from platform_core.manifest.serving import Calibration, Serving, current_serving, serving_history
from platform_core.manifest.stages import current_series
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest

if TYPE_CHECKING:
    from platform_core.lineage.why import Node

METADATA = "configs/metadata.json"
"""In a bundle; named here too, because what writes it loads torch."""
MADE_WITH = ("code_version", "weights_sha256", "network", "source_weights", "pytorch_version", "monai_version")

Row = dict[str, Any]


@dataclass(slots=True)
class Walk:
    """One walk through a workspace."""

    workspace: Workspace
    few: int | None
    node: "type[Node]"
    met: set[tuple[str, str]] = field(default_factory=set)
    """Things that were taken apart already."""

    # -- things by name; None if there is none

    def model(self, name: str) -> "Node | None":
        """A model version: its code, scans, recipe, parent, what was decided with it and who runs it."""
        ref = {one.name: one for one in registry.models(self.workspace)}.get(name)
        if ref is None:
            return None
        if self._is_met("model", name):
            return self.node(kind="model", name=name, facts={"see": "above"})
        events = self._rows(layout.MODEL, (pc.field("model") == ref.model) & (pc.field("version") == ref.version))
        facts = {"alias": ref.alias, "strategy": ref.strategy, "made": _moment(ref.created_at), "run": events[0]["run"]}
        decisions = [row for row in self._decisions(None) if _tells_of(row, ref, events[0]["run"])]
        children = [
            *(self._event(row) for row in sorted(events, key=lambda row: int(row["epoch"]))),
            self._bundle(ref),
            self._reference(ref),
            self.recipe(ref.recipe),
            self.model(ref.parent) if ref.parent else None,
            *(self.decision(key) for key in dict.fromkeys(row["decision_key"] for row in decisions)),
            *self._withdrawals(name),
            *self._run_by(ref),
        ]
        return self.node(kind="model", name=name, facts=facts, children=_there(children))

    def serving(self, name: str) -> "Node | None":
        """What a site runs for one target, or for all."""
        site, _, target = name.partition("/")
        if site not in self.workspace.sites:
            return None
        targets = [target] if target else list(self.workspace.settings.target)
        found = [current_serving(self.workspace, site, each) for each in targets]
        nodes = [self._serving(each) for each in found if each is not None]
        return nodes[0] if len(nodes) == 1 else self.node(kind="site", name=name, children=tuple(nodes))

    def finding(self, key: str) -> "Node | None":
        """A finding: the period's scans, what was measured, what it was held against, and what came of it."""
        rows = self._rows(layout.FINDING, pc.field("finding_key") == key)
        if not rows:
            return None
        if self._is_met("finding", key):
            return self.node(kind="finding", name=key, facts={"see": "above"})
        row = rows[0]
        facts = {name: row[name] for name in ("site", "stratum", "target", "kind")}
        facts |= {"period": f"{row['period_start']} to {row['period_end']}", "size": _interval(row)}
        facts |= {"because": row["explained_by"], "run": row["run"]}
        children = [
            self._measured(row),
            self._period(row),
            self.model(row["reference"]) or self.node(kind="accepted state", name=str(row["reference"])),
            *(self.decision(each) for each in dict.fromkeys(one["decision_key"] for one in self._decisions(key))),
            *self._episodes(key),
        ]
        return self.node(kind="finding", name=key, facts=facts, children=_there(children))

    def decision(self, key: str) -> "Node | None":
        """A decision: its finding, who approved it, what the site ran before and after."""
        rows = self._rows(layout.DECISION, pc.field("decision_key") == key)
        if not rows:
            return None
        if self._is_met("decision", key):
            return self.node(kind="decision", name=key, facts={"see": "above"})
        rows.sort(key=lambda row: (row["decided_at"], row["status"] == "done"))
        row = rows[-1]
        facts = {name: row[name] for name in ("site", "action", "strategy", "rule", "because")}
        facts |= {"status": " then ".join(dict.fromkeys(str(one["status"]) for one in rows))}
        facts |= {"approved by": row["approved_by"], "decided": _moment(row["decided_at"]), "run": row["run"]}
        facts |= {"ran": _served(row["serving_before"]), "runs": _served(row["serving_after"])}
        return self.node(
            kind="decision", name=key, facts=facts, children=_there([self.finding(str(row["finding_key"]))])
        )

    def recipe(self, name: str) -> "Node | None":
        """A fitted recipe: its steps and the hash of the scans that it learned from."""
        if name == layout.NATIVE:
            return self.node(kind="recipe", name=name, facts={"steps": "none"})
        rows = self._rows(layout.RECIPE, pc.field("recipe") == name)
        if not rows:
            return None
        row = rows[0]
        steps = [f"{one['harmonizer']} v{one.get('version', 1)}" for one in json.loads(row["steps"])]
        facts = {"steps": steps, "fitted at": row["site"], "on": f"{row['n_fitted']} scans, hash {row['fitted_on']}"}
        facts |= {"made": _moment(row["created_at"]), "run": row["run"]}
        return self.node(kind="recipe", name=name, facts=facts)

    def series(self, key: str) -> "Node | None":
        """A series: its hash, the files that it came in, and every stage's answer."""
        rows = self._rows(layout.SERIES, pc.field("series_key") == key)
        if not rows:
            return None
        newest = max(rows, key=lambda row: int(row["revision"]))
        (found,) = self._series([(newest["site"], key, newest["revision"])])
        answers = self._rows(layout.STAGE, pc.field("series_key") == key)
        stages = [
            self.node(
                kind="stage",
                name=row["stage"],
                facts={n: row[n] for n in ("recipe", "model", "outcome", "reason", "run")},
            )
            for row in answers
        ]
        return self.node(kind=found.kind, name=key, facts=found.facts, children=(*found.children, *stages))

    # -- parts of things

    def _serving(self, serving: Serving) -> "Node":
        where = (pc.field("site") == serving.site) & (pc.field("target") == serving.target)
        row = next(row for row in self._rows(layout.SERVING, where) if row["epoch"] == serving.epoch)
        facts = {"model": serving.model, "recipe": serving.recipe, "since": _moment(row["since"]), "run": row["run"]}
        facts |= {"calibration": serving.calibration.spelt, "threshold": serving.calibration.threshold}
        facts |= {"ends by itself": _moment(serving.until)} if serving.until else {}
        facts |= {"servings before": len(serving_history(self.workspace, serving.site, serving.target)) - 1}
        decision = self.decision(row["decision_key"]) if row["decision_key"] else None
        children = [decision, self.recipe(serving.recipe), self.model(serving.model)]
        name = f"{serving.site}/{serving.target}"
        return self.node(kind="serving", name=name, facts=facts, children=_there(children))

    def _event(self, row: Row) -> "Node":
        facts = {"since": _moment(row["since"]), "run": row["run"]}
        return self.node(kind="alias", name=row["alias"], facts=facts)

    def _bundle(self, ref: ModelRef) -> "Node":
        try:
            facts = json.loads(self.workspace.objects.get(f"{ref.bundle_uri}/{METADATA}"))
        except FileNotFoundError:
            return self.node(kind="bundle", name=ref.bundle_uri, facts={"told": "its metadata is missing"})
        made = {name: facts[name] for name in MADE_WITH if name in facts}
        return self.node(kind="bundle", name=ref.bundle_uri, facts=made)

    def _reference(self, ref: ModelRef) -> "Node":
        """The frozen list; its hash is held against the one that was registered."""
        try:
            rows = registry.read_reference(self.workspace, ref.bundle_uri)
        except BadInput as error:
            return self.node(kind="reference", name=ref.reference, facts={"told": str(error)})
        listed = rows.to_pylist()
        is_same = digest(listed) == ref.reference
        facts: Row = {"scans": dict(sorted(_counted(row["site"] for row in listed).items()))}
        facts["hash"] = (
            "holds" if is_same else "is that of a longer list: scans were withdrawn, or the file was changed"
        )
        shown, n_more = self._first([(row["site"], row["series_key"], row["revision"]) for row in listed])
        nodes = self._series(shown)
        return self.node(kind="reference", name=ref.reference, facts=facts, children=tuple(nodes), n_more=n_more)

    def _period(self, finding: Row) -> "Node":
        """The scans that a finding is about, as they are known now."""
        inside = (
            (pc.field("stratum") == finding["stratum"])
            & (pc.field("observed_on") >= finding["period_start"])
            & (pc.field("observed_on") <= finding["period_end"])
        )
        rows = current_series(self.workspace, finding["site"]).filter(inside).to_pylist()
        shown, n_more = self._first([(row["site"], row["series_key"], row["revision"]) for row in rows])
        facts = {"scans": len(rows), "patients": len({row["patient_key"] for row in rows})}
        return self.node(
            kind="period",
            name=str(finding["period_start"]),
            facts=facts,
            children=tuple(self._series(shown)),
            n_more=n_more,
        )

    def _measured(self, finding: Row) -> "Node":
        where = (pc.field("site") == finding["site"]) & (pc.field("stratum") == finding["stratum"])
        where &= (pc.field("period_start") == finding["period_start"]) & (pc.field("run") == finding["run"])
        rows = sorted(self._rows(layout.SHIFT, where), key=lambda row: -(row["value"] or 0))
        shown, n_more = self._first(rows)
        nodes = [
            self.node(
                kind=row["statistic"],
                name=row["feature"],
                facts={"value": _interval(row, "value"), "p": row["evidence"], "held against": row["reference"]},
            )
            for row in shown
        ]
        return self.node(kind="statistics", name=str(len(rows)), children=tuple(nodes), n_more=n_more)

    def _series(self, wanted: Sequence[tuple[str, str, int]]) -> "list[Node]":
        """Series with the hash of their voxels and of the files that they came in."""
        keys = pa.array([key for _, key, _ in wanted], pa.string())
        rows = {
            (r["series_key"], r["revision"]): r for r in self._rows(layout.SERIES, pc.field("series_key").isin(keys))
        }
        files: dict[str, list[Row]] = {}
        for row in self._rows(layout.ARRIVAL, pc.field("series_key").isin(keys)):
            files.setdefault(row["series_key"], []).append(row)
        return [self._one(site, key, n, rows.get((key, n)), files.get(key, [])) for site, key, n in wanted]

    def _one(self, site: str, key: str, revision: int, row: Row | None, files: list[Row]) -> "Node":
        if row is None:
            return self.node(kind="series", name=key, facts={"site": site, "told": "no row of it is left"})
        facts = {
            "site": site,
            "revision": revision,
            "volume": row["volume_sha256"],
            "observed": str(row["observed_on"]),
        }
        facts |= {"files": len(files), "run": row["run"]}
        shown = sorted(files, key=lambda file: str(file["arrival_key"])) if self.few is None else []
        nodes = [
            self.node(
                kind="file", name=file["arrival_key"], facts={"content": file["content_sha256"], "run": file["run"]}
            )
            for file in shown
        ]
        return self.node(kind="series", name=key, facts=facts, children=tuple(nodes))

    def _episodes(self, finding: str) -> "list[Node]":
        rows = self._rows(layout.EPISODE, pc.field("finding_key") == finding)
        return [
            self.node(kind="episode", name=row["episode_key"], facts={"state": row["state"], "run": row["run"]})
            for row in rows
        ]

    def _withdrawals(self, model: str) -> "list[Node]":
        rows = [row for row in self._rows(layout.WITHDRAWAL) if f'"{model}"' in row["models"]]
        return [
            self.node(kind="withdrawal", name=row["run"], facts={"series": row["n_series"], "told": "it saw them"})
            for row in rows
        ]

    def _run_by(self, ref: ModelRef) -> "list[Node]":
        found = [current_serving(self.workspace, site, ref.model) for site in self.workspace.sites]
        names = [each.site for each in found if each is not None and each.model == ref.name]
        return [self.node(kind="run by", name=", ".join(names) or "no site")]

    def _decisions(self, finding: str | None) -> list[Row]:
        return self._rows(layout.DECISION, None if finding is None else pc.field("finding_key") == finding)

    def _rows(self, table: str, where: pc.Expression | None = None) -> list[Row]:
        return list(self.workspace.lake.read(table, where).to_pylist())

    def _first(self, items: Sequence[Any]) -> tuple[list[Any], int]:
        """Those to be shown, and how many more there are."""
        shown = list(items if self.few is None else items[: self.few])
        return shown, len(items) - len(shown)

    def _is_met(self, kind: str, name: str) -> bool:
        is_met = (kind, name) in self.met
        self.met.add((kind, name))
        return is_met


def _tells_of(decision: Row, ref: ModelRef, run: str) -> bool:
    """Whether a decision trained this version, or brought it into a site's serving."""
    is_trained = decision["action"] == "fine_tune" and decision["run"] == run
    before, after = (_served(decision[name]) for name in ("serving_before", "serving_after"))
    return is_trained or (after is not None and after.startswith(f"{ref.name} ") and before != after)


def _served(serving: str | None) -> str | None:
    if serving is None:
        return None
    facts = json.loads(serving)
    return f"{facts['model']} by {facts['recipe']} at {Calibration(**facts['calibration']).spelt}"


def _interval(row: Row, name: str = "size") -> str | None:
    if row[name] is None:
        return None
    has_ends = row["low"] is not None and row["high"] is not None
    return f"{row[name]:.4g}" + (f" [{row['low']:.4g}, {row['high']:.4g}]" if has_ends else "")


def _moment(at: Any) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _there(nodes: "Iterable[Node | None]") -> "tuple[Node, ...]":
    return tuple(node for node in nodes if node is not None)
