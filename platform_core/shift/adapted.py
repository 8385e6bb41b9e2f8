"""Which version's training a model's weights come from: an adaptation without labels trains nothing."""

import pyarrow.compute as pc

from platform_core import layout
from platform_core.manifest.workspace import Workspace


def trained_version(workspace: Workspace, model: str) -> str:
    """`model@version` itself, or what it was adapted from.

    An adapted network is for one site's scans. What the reference looked like, who was learned from and since when, is
    a question to the network that it was made of.
    """
    name, _, version = model.rpartition("@")
    where = (pc.field("model") == name) & (pc.field("alias") == "adapted")
    rows = workspace.lake.read(layout.MODEL, where, ["version", "parent"]).to_pylist()
    return next((str(row["parent"]) for row in rows if str(row["version"]) == version), model)
