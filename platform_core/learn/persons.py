"""Who is who when patients are split: those under whose keys the same image lies are one person.

The split goes by the patient's key alone (`manifest.splits`), so a scan that came under two identifiers (sent again
by another hospital, pseudonymised twice) could lie in the train and in the evaluation part. No such person is
trained on.
"""

from collections.abc import Iterable, Mapping
from typing import get_args

from platform_core import layout
from platform_core.manifest.splits import Part, part_of
from platform_core.manifest.workspace import Workspace
from platform_core.queries import load
from platform_core.settings import SplitSettings

Person = frozenset[str]
"""Keys of patients."""
PARTS: tuple[Part, ...] = get_args(Part)
"""Train comes first, evaluation, which must stay unseen, last."""


def find_persons(workspace: Workspace) -> dict[str, Person]:
    """Every patient key that shares an image with another, with all keys of that person; others are left out."""
    with workspace.lake.connect([layout.SERIES, layout.STAGE]) as db:
        rows = load(__package__, "shared_scans").run(db).to_pylist()
    return joined((row["patient_key"], row["other"]) for row in rows)


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, Person]:
    """Chains of pairs made into groups: a with b and b with c are one."""
    person: dict[str, Person] = {}
    for a, b in pairs:
        together = person.get(a, Person({a})) | person.get(b, Person({b}))
        person |= dict.fromkeys(together, together)
    return person


def person_of(patient_key: str, persons: Mapping[str, Person]) -> Person:
    """All keys of the person that a patient is."""
    return persons.get(patient_key, Person({patient_key}))


def is_in_part(person: Person, patient_key: str, part: Part, split: SplitSettings) -> bool:
    """Whether this patient's scans belong to a part, and no other key of the person to a later one."""
    latest = max((part_of(key, split) for key in person), key=PARTS.index)
    return part_of(patient_key, split) == part == latest
