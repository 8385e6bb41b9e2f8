"""Withdrawals from a workspace on S3, and of patients whose images carry no header."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from platform_core import layout
from platform_core.lineage.journal import held_plans
from platform_core.lineage.plan import plan_withdrawal
from platform_core.lineage.withdraw import withdraw
from platform_core.manifest.door import create_key
from platform_core.manifest.workspace import Workspace, add_site, create_workspace, open_workspace
from platform_core.settings import SiteSettings
from tests.conftest import WriteCT
from tests.lineage.conftest import take_in

AT = datetime(2026, 3, 1, tzinfo=UTC)


def holding(workspace: Workspace, words: frozenset[str]) -> set[str]:
    """Objects that hold a word, in their name or as they lie or read as Parquet."""
    found = set()
    for path in workspace.objects.list(""):
        data = path.encode() + workspace.objects.get(path)
        if path.endswith(".parquet"):
            data += repr(pq.ParquetFile(BytesIO(workspace.objects.get(path))).read().to_pylist()).encode()
        found |= {path for word in words if word.encode() in data}
    return found


def test_nothing_is_left_in_a_bucket(bucket_uri: str, home: Path, tmp_path: Path, write_ct: WriteCT) -> None:
    made = create_workspace(f"{bucket_uri}/w", key_fingerprint=create_key("w"))
    for number in range(3):
        uid = f"1.2.826.0.1.7.{number}"
        write_ct(tmp_path / "scans" / str(number), SeriesInstanceUID=uid, PatientID=f"P-{number}")
    add_site(made, "north", SiteSettings(quiet_s=0, path=str(tmp_path / "scans")))
    here = open_workspace(made.uri)
    take_in(here, "north", AT)
    plan = plan_withdrawal(here, "north", "P-1", run="w", at=AT)
    assert len(holding(here, plan.words)) > 3
    assert withdraw(here, plan, at=AT).has_ended
    assert holding(here, plan.words) == set()
    assert held_plans(here) == []
    assert here.lake.read(layout.SERIES).num_rows == 2
    assert take_in(here, "north", AT + timedelta(days=1)) == 4
    assert here.lake.read(layout.SERIES).num_rows == 2


def test_images_whose_patient_an_index_names_are_withdrawn_and_stay_out(workspace: Workspace, tmp_path: Path) -> None:
    images, rng = tmp_path / "images", np.random.default_rng(0)
    images.mkdir()
    for number in range(3):
        pixels = rng.integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    index = tmp_path / "index.csv"
    index.write_text("file,patient_id\n0.png,A\n1.png,B\n2.png,A\n", encoding="utf-8")
    settings = SiteSettings(quiet_s=0, source="image_folder", path=str(images), modality="DX", index=str(index))
    add_site(workspace, "plain", settings)
    here = open_workspace(workspace.uri)
    assert take_in(here, "plain", AT) == 3
    plan = plan_withdrawal(here, "plain", "A", run="w", at=AT)
    assert len(plan.keys) == 2
    assert withdraw(here, plan, at=AT).has_ended
    assert holding(here, plan.words) == set()
    assert take_in(here, "plain", AT + timedelta(days=1)) == 2
    told = here.lake.read(layout.ARRIVAL).to_pylist()
    assert (
        sorted((row["outcome"], row["reason"]) for row in told if row["outcome"] == "ignored")
        == [("ignored", "withdrawn")] * 2
    )
    assert here.lake.read(layout.SERIES).num_rows == 1
