"""What the verbs `withdraw` and `why` say to the person at the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platform_core.lineage.plan import Plan
    from platform_core.lineage.seen import Seen
    from platform_core.lineage.withdraw import Withdrawn

OUT_OF_REACH = "printed pages, exports, bundles and sketches that left, backups, logs and the database of Prefect"


def planned(plan: "Plan") -> Iterator[str]:
    """What would go; it names nobody."""
    if not plan.keys:
        known = "withdrawn before" if plan.is_known else "not known here: the identifier may be mistyped"
        yield f"No series of this patient is here ({known}). A tombstone keeps later ones out."
        return
    sites = ", ".join(f"{len(keys)} at {site}" for site, keys in plan.series.items())
    yield f"{len(plan.keys)} series ({sites}), {plan.n_files} files, {plan.n_volumes} stored volumes."
    rows = ", ".join(f"{n} of {table}" for table, n in plan.n_rows.items())
    yield f"Rows: {rows}; from every version of these tables."
    yield "Sketches of the days are counted anew, ranks close up, report pages go until they are written again."
    yield from _models(plan.models)


def ended(done: "Withdrawn") -> Iterator[str]:
    """What came of it, and what is left to do."""
    if done.has_ended:
        yield "Withdrawn: no file of the workspace holds a key of the patient. What comes again is ignored."
    for path in done.traces:
        yield f"left: {path} still holds a key; remove it and call again"
    for site in done.elsewhere:
        yield f"left: the door book of {site} is not on this machine; call this verb at its door as well"
    yield from _models(done.models)
    yield f"Not reached: {OUT_OF_REACH}."


def _models(models: "tuple[Seen, ...]") -> Iterator[str]:
    words = {"trained": "was trained on it", "descended": "comes from a model that was trained on it",
             "calibrated": "may have been calibrated on its labels",
             "fitted": "runs a calibration that may have been fitted to its labels"}  # fmt: skip
    for seen in models:
        way = "the next finding that asks for one fits it anew, or" if seen.how == "fitted" else "its like without"
        yield f"{seen.model} ({seen.alias}) {words[seen.how]}; {way}: {seen.rebuild}"
