"""Statistics that leave a site without its scans.

A site behind its wall takes in the reference's edges, makes its own sketches and sends them: nothing else.
A sum over one scan IS that scan's embedding, so days are merged until a cell holds enough patients; what is
left over at the end waits for the next export. Cells are filled from the first day on, so the cells of an earlier
export come again unchanged, and no difference of two exports is about fewer patients (a late scan of a closed
cell is: send then only when many have come).

The digest in a file tells damage and careless edits. Who sent it is for the channel to say.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from platform_core import layout
from platform_core.errors import BadRequest, BadSketchFile
from platform_core.manifest.schemas import REFERENCE, SKETCH
from platform_core.manifest.stages import transaction
from platform_core.manifest.workspace import Workspace
from platform_core.provenance import digest
from platform_core.shift.risk import Wholes
from platform_core.shift.sketch.cells import (
    Cells,
    Key,
    Part,
    Sketch,
    cells_of,
    difference_rows,
    merge_cells,
    parts_of,
    row_of,
)
from platform_core.shift.sketch.patient_days import Basis, PatientDays, feature_days, score_days
from platform_core.shift.sketch.references import Frozen, Row, read_reference
from platform_core.shift.sketch.sketches import append_entry, next_entry, read_sketches
from platform_core.shift.sketch.vector_maps import N_FOURIER, n_components
from platform_core.storage.tables import rows_of

FACTS = b"sitedrift"
LEAST_PATIENTS = 10
OVER_DETERMINED = 2
"""A vector's cell has this many times more unknown numbers than sums that are sent of them."""
SENT = pa.schema([field for field in SKETCH if field.name not in ("entry", "run")]).remove_metadata()
REFERENCE_SENT = pa.schema([field for field in REFERENCE if field.name != "run"]).remove_metadata()


def export_sketches(workspace: Workspace, site: str, *, basis: Basis, at_least_patients: int = LEAST_PATIENTS) -> bytes:
    """The site's sketches as one Parquet file: the promised columns of `out__sketch` and nothing else.

    Args:
        workspace: The site's own, with the reference's edges taken in.
        site: The hospital.
        basis: Which sketches.
        at_least_patients: Different patients that every cell holds. Cells of embeddings hold more: enough that
            the sums are fewer than half the numbers summed.

    Raises:
        BadRequest: If fewer than two patients are asked for, or the reference is not known here.
    """
    if at_least_patients < 2:
        raise BadRequest(f"{at_least_patients} patients per cell: a sum over one scan is that scan; ask for 2 or more")
    frozen = _known_reference(workspace, basis)
    counted = (feature_days(workspace, site, basis.recipe), score_days(workspace, site, basis))
    about = {"site": site, "recipe": basis.recipe, "reference": basis.reference}
    cells = [cell for days in counted for cell in merged_cells(days, frozen, at_least_patients)]
    rows = [about | row_of(key, sketch) for key, sketch in sorted(cells, key=lambda cell: cell[0])]
    facts = {"what": "sketches", "site": site, "at_least_patients": at_least_patients, "edges": edges_digest(frozen)}
    return _pack(pa.Table.from_pylist(rows, schema=SENT), facts)


def merged_cells(patient_days: PatientDays, frozen: Frozen, at_least: int) -> Iterator[tuple[Key, Sketch]]:
    """Cells of merged days that hold enough different patients each, oldest first; days left over are in none."""
    strata = patient_days.stratum
    for stratum in sorted(set(strata.tolist())):
        chosen = np.flatnonzero(strata == stratum)
        here = PatientDays(patient_days.rows.take(chosen), patient_days.names, patient_days.classes)
        patients = np.asarray(here.rows.column("patient_key").to_pylist(), dtype=np.str_)
        days, group = np.unique(here.day, return_inverse=True)
        sizes: dict[str, int] = {}
        for part in parts_of(here, frozen, stratum, group, len(days)):
            name = part.feature.removesuffix("_fourier")
            sizes.setdefault(name, patients_needed(part, at_least))
            seen = _patients_of_days(patients, group, part, len(days))
            for first, last in _runs(seen, sizes[name]):
                whole = merge_cells(_sketch(part, i) for i in range(first, last + 1) if part.n[i])
                yield (stratum, days[first].astype(object), days[last].astype(object), part.feature), whole


def patients_needed(part: Part, at_least: int) -> int:
    """Patients of a cell: of d numbers each, enough that the sums sent of them cannot be solved for them."""
    if part.kind != "moments":
        return at_least
    d, n_sums = n_components(part.sums.shape[1]), part.sums.shape[1] + N_FOURIER
    return max(at_least, int(np.ceil(OVER_DETERMINED * n_sums / d)))


def _patients_of_days(patients: npt.NDArray[np.str_], group: Wholes, part: Part, n_days: int) -> list[set[str]]:
    """Who was counted on each day."""
    found: list[set[str]] = [set() for _ in range(n_days)]
    for place, patient in zip(group[part.is_known].tolist(), patients[part.is_known].tolist(), strict=True):
        found[place].add(patient)
    return found


def _runs(patients: list[set[str]], at_least: int) -> Iterator[tuple[int, int]]:
    """First and last place of runs that hold enough different patients; what is left at the end is in none."""
    seen: set[str] = set()
    first: int | None = None
    for place, here in enumerate(patients):
        if here and first is None:
            first = place
        seen.update(here)
        if first is not None and len(seen) >= at_least:
            yield first, place
            seen, first = set(), None


def _sketch(part: Part, i: int) -> Sketch:
    return Sketch(part.kind, int(part.n[i]), part.sums[i])


def import_sketches(workspace: Workspace, data: bytes, *, run: str) -> int:
    """Take in what a site exported; returns the rows written, 0 if it is all here.

    A file states all of the site: a later one adds its new cells, and corrects those that have changed.

    Raises:
        BadSketchFile: If it is damaged, was changed, breaks its own promise, or is of another reference.
        UnknownName: If there is no such site.
        BadRequest: If this workspace makes the site's sketches itself.
    """
    table, facts = _unpack(data, "sketches", SENT)
    site = str(facts.get("site"))
    workspace.site(site)
    if len(workspace.lake.read(layout.SERIES, pc.field("site") == site, ["site"])):
        raise BadRequest(
            f"{site}: this workspace has its scans and makes its sketches; an import would count them twice"
        )
    bases = {(row["reference"], row["recipe"]) for row in table.select(["reference", "recipe"]).to_pylist()}
    n_written = 0
    for reference, recipe in sorted(bases):
        basis = Basis(reference=reference, recipe=recipe)
        mine = table.filter((pc.field("reference") == reference) & (pc.field("recipe") == recipe))
        frozen = _known_reference(workspace, basis)
        if facts.get("edges") != edges_digest(frozen):
            raise BadSketchFile("other_reference", f"its histograms are not on the edges of {reference} as known here")
        wanted = _checked(mine, frozen, facts)
        entry = next_entry(workspace, site, basis)
        rows = difference_rows(cells_of(read_sketches(workspace, basis, sites=[site])), wanted)
        n_written += append_entry(workspace, site, rows, basis=basis, entry=entry, run=run) if rows else 0
    return n_written


def import_file(workspace: Workspace, data: bytes, *, run: str) -> tuple[str, int]:
    """Take in a file of either kind; returns `reference` or `sketches`, and the rows written.

    Raises:
        BadSketchFile: If it is neither, or as `import_reference` and `import_sketches`.
    """
    try:
        facts = json.loads((pq.read_schema(pa.BufferReader(data)).metadata or {}).get(FACTS, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadSketchFile("unreadable", f"{len(data)} bytes that are no sketches") from error
    if isinstance(facts, dict) and facts.get("what") == "reference":
        return "reference", import_reference(workspace, data, run=run)
    return "sketches", import_sketches(workspace, data, run=run)


def export_reference(workspace: Workspace, basis: Basis) -> bytes:
    """What a site behind its wall needs: the reference's edges, maps and own sketches.

    Edges are values that single patients of the reference had, without anything about whose.

    Raises:
        BadRequest: If the reference was not frozen here.
    """
    frozen = _known_reference(workspace, basis)
    return _pack(frozen.rows.select(REFERENCE_SENT.names), {"what": "reference", "edges": edges_digest(frozen)})


def import_reference(workspace: Workspace, data: bytes, *, run: str) -> int:
    """Keep a reference that another workspace has frozen; returns its rows, 0 if it is here.

    Raises:
        BadSketchFile: If it is damaged or was changed, or another one of its name is here.
    """
    table, facts = _unpack(data, "reference", REFERENCE_SENT)
    n_written = 0
    for reference, recipe in sorted({(row["reference"], row["recipe"]) for row in table.to_pylist()}):
        basis = Basis(reference=reference, recipe=recipe)
        rows = [
            row | {"run": run} for row in table.to_pylist() if (row["reference"], row["recipe"]) == (reference, recipe)
        ]
        name = transaction("reference", reference, recipe)
        n_written += workspace.lake.append(layout.REFERENCE, rows_of(REFERENCE, rows), transaction=name)
        if facts.get("edges") != edges_digest(read_reference(workspace, basis)):
            raise BadSketchFile("other_reference", f"another reference is here under the name {reference}")
    return n_written


def edges_digest(frozen: Frozen) -> str:
    """One short name for all edges and maps of a reference."""
    columns = frozen.rows.select(["stratum", "feature", "kind", "edges", "map", "members"])
    return digest([list(row.values()) for row in columns.to_pylist()], 32)


def _known_reference(workspace: Workspace, basis: Basis) -> Frozen:
    frozen = read_reference(workspace, basis)
    if not len(frozen.rows):
        raise BadRequest(f"reference {basis.reference} with recipe {basis.recipe} is not known here; import it first")
    return frozen


def _pack(table: pa.Table, facts: dict[str, Any]) -> bytes:
    told = json.dumps(facts | {"format": 1, "digest": _digest(table, facts)}, sort_keys=True)
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({FACTS: told}), out)
    return out.getvalue()


def _unpack(data: bytes, what: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(pa.BufferReader(data))
        facts = json.loads((table.schema.metadata or {}).get(FACTS, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadSketchFile("unreadable", f"{len(data)} bytes that are no {what}") from error
    if not isinstance(facts, dict) or facts.get("format") != 1 or facts.get("what") != what:
        raise BadSketchFile("foreign", f"it says of itself that it is no {what} of this platform")
    found = table.schema.remove_metadata()
    if (found.names, found.types) != (schema.names, schema.types):
        told = ", ".join(f"{field.name} {field.type}" for field in found)
        raise BadSketchFile("columns", f"expected {', '.join(schema.names)}; found {told}")
    stated = facts.pop("digest", "")
    facts.pop("format")
    if stated != _digest(table, facts):
        raise BadSketchFile("changed", "its content is not what was exported")
    return table, facts


def _digest(table: pa.Table, facts: dict[str, Any]) -> str:
    rows = json.dumps([facts, table.to_pylist()], sort_keys=True, default=date.isoformat)
    return hashlib.sha256(rows.encode()).hexdigest()


def _checked(table: pa.Table, frozen: Frozen, facts: dict[str, Any]) -> Cells:
    """The cells of a file.

    Raises:
        BadSketchFile: At the first that cannot be what it says.
    """
    least = facts.get("at_least_patients")
    if not isinstance(least, int) or least < 2:
        raise BadSketchFile("cells", f"it promises {least} patients per cell")
    known = {(row["stratum"], row["feature"]): row for row in frozen.rows.to_pylist()}
    ended: dict[tuple[str, str], date] = {}
    cells: Cells = {}
    for row in table.sort_by("day").to_pylist():
        name = (row["stratum"], row["feature"])
        problem = _problem(row, known.get(name), least, str(facts["site"]))
        if problem or row["day"] <= ended.get(name, date.min):
            raise BadSketchFile("cells", f"{row['feature']} of {row['day']}: {problem or 'a day is in two cells'}")
        ended[name] = row["last_day"]
        key = (row["stratum"], row["day"], row["last_day"], row["feature"])
        moments = [row["sum"], row["sum_squares"]] if row["kind"] == "histogram" else []
        cells[key] = Sketch(row["kind"], row["n"], np.asarray([*row["sketch"], *moments], dtype=np.float64))
    return cells


def _problem(row: Row, reference: Row | None, least: int, site: str) -> str | None:
    """Why a cell cannot be what it says; None if nothing speaks against it."""
    needed = [name for name in SENT.names if row["kind"] == "histogram" or name not in ("sum", "sum_squares")]
    if any(row[name] is None for name in needed) or None in row["sketch"]:
        return "lacks a value"
    sketch = np.asarray(row["sketch"], dtype=np.float64)
    if row["site"] != site:
        return "is of another site"
    if row["n"] < least or row["last_day"] < row["day"]:
        return f"holds fewer than the promised {least} patients, or ends before it begins"
    if row["kind"] != ("labels" if row["feature"] == "label" else reference and reference["kind"]):
        return "is unknown to the reference"
    n_expected = 3 if reference is None else len(reference["sketch"])
    if len(sketch) != n_expected or not np.isfinite(sketch).all():
        return f"needs {n_expected} finite numbers"
    if row["kind"] in ("histogram", "labels"):
        is_count = (sketch >= 0) & (sketch == np.round(sketch))
        if not is_count.all() or sketch.sum() != row["n"]:
            return "has counts that do not add up"
    if row["kind"] == "histogram" and not np.isfinite([row["sum"], row["sum_squares"]]).all():
        return "has moments that are not finite"
    return None
