"""What leaves the workspace: whole, the same every time, and without a key of anybody."""

import hashlib
import json
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from flows.cli import app
from platform_core.errors import BadRequest, NoSuchPlace, UnknownName
from platform_core.learn import export
from platform_core.learn.export import SUMS, export_model, told_count, zipped
from platform_core.learn.registry import REFERENCE, ModelRef, register
from platform_core.manifest.serving import Calibration, Serving, change_serving
from platform_core.manifest.workspace import Workspace
from platform_core.trial.change_control import keep_change_control
from tests.learn.test_bundle import AT, CLIP, RESAMPLE, WINDOW, by_monai, kept, platform_s, scan, stored

KEYS = ("5e1e5aaaa", "5e1e5bbbb")
SECRET_FOLDER = "/home/Erika Musterfrau/weights"


@pytest.fixture
def ref(with_target: Workspace) -> ModelRef:
    """A registered model of 12 scans of north and 3 of south that began with a file in a person's folder."""
    recipe, _ = kept(with_target, RESAMPLE, CLIP)
    made = stored(with_target, WINDOW, recipe=recipe)
    rows = [("north", f"{KEYS[0]}{i}") for i in range(12)] + [("south", f"{KEYS[1]}{i}") for i in range(3)]
    listed = pa.table({"site": [s for s, _ in rows], "series_key": [k for _, k in rows], "revision": [1] * 15})
    out = BytesIO()
    pq.write_table(listed, out)
    with_target.objects.put(f"{made.bundle_uri}/{REFERENCE}", out.getvalue())
    path = f"{made.bundle_uri}/configs/metadata.json"
    facts = json.loads(with_target.objects.get(path))
    facts["source_weights"] = {"where": f"{SECRET_FOLDER}/tiny.pt", "sha256": "ab", "share": 1.0}
    with_target.objects.put(path, json.dumps(facts).encode())
    return register(with_target, made, run="run")


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_exported_bundle_answers_as_the_platform_does(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    done = export_model(with_target, ref.name, tmp_path / "lesion.zip")
    with zipfile.ZipFile(done.file) as archive:
        archive.extractall(tmp_path / "there")
    answer = by_monai(tmp_path / "there" / "lesion-2", scan(WINDOW))
    assert answer["probability"] == pytest.approx(platform_s(with_target, ref, scan(WINDOW))[1], abs=1e-5)


def test_equal_models_give_equal_bytes(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    first, second = (export_model(with_target, ref.name, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.file.read_bytes() == second.file.read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256(first.file.read_bytes()).hexdigest()


def test_every_file_is_listed_with_its_hash(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    done = export_model(with_target, ref.name, tmp_path / "a.zip", documents={"docs/README.md": b"# Card"})
    found = unpacked(done.file.read_bytes())
    listed = dict(line.split("  ")[::-1] for line in found[f"lesion-2/{SUMS}"].decode().splitlines())
    assert {f"lesion-2/{path}" for path in listed} == found.keys() - {f"lesion-2/{SUMS}"}
    assert all(hashlib.sha256(found[f"lesion-2/{path}"]).hexdigest() == sha for path, sha in listed.items())
    assert {"docs/README.md", "LICENSE", "models/model.pt", "configs/inference.json"} <= listed.keys()


def test_no_key_path_or_secret_is_in_it(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    done = export_model(with_target, ref.name, tmp_path / "a.zip")
    inside = b"".join(name.encode() + data for name, data in unpacked(done.file.read_bytes()).items())
    for word in (*KEYS, "Erika", "Musterfrau", str(tmp_path), with_target.uri, with_target.settings.key_fingerprint):
        assert word.encode() not in inside, word
    facts = json.loads(unpacked(done.file.read_bytes())["lesion-2/configs/metadata.json"])
    assert facts["source_weights"]["where"] == "tiny.pt"


def test_the_reference_leaves_as_counts_and_a_hash(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    done = export_model(with_target, ref.name, tmp_path / "a.zip")
    facts = json.loads(unpacked(done.file.read_bytes())["lesion-2/configs/reference.json"])
    assert facts == {"sha256_start": ref.reference, "n_scans": {"north": 12, "south": "fewer than 10"}}
    assert not any(path.endswith(".parquet") for path in done.paths)
    assert (told_count(9), told_count(10)) == ("fewer than 10", 10)


def test_a_site_s_serving_gives_recipe_and_calibration(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    recipe, _ = kept(with_target, CLIP)
    own = Calibration(logit_offset=0.9, prevalence=0.7, threshold=0.5)
    serving = Serving(site="south", target="lesion", model=ref.name, recipe=recipe, calibration=own, epoch=-1)
    change_serving(with_target, serving, decision_key=None, at=AT, run="run")
    found = unpacked(export_model(with_target, ref.name, tmp_path / "a.zip", site="south").file.read_bytes())
    assert json.loads(found["lesion-2/configs/recipe.json"])["recipe"] == recipe
    assert json.loads(found["lesion-2/configs/calibration.json"])["logit_offset"] == 0.9
    assert json.loads(found["lesion-2/configs/inference.json"])["logit_offset"] == 0.9
    with pytest.raises(BadRequest, match="north does not run lesion@2 but nothing"):
        export_model(with_target, ref.name, tmp_path / "b.zip", site="north")
    with pytest.raises(UnknownName, match="north, south"):
        export_model(with_target, ref.name, tmp_path / "b.zip", site="west")


def test_a_file_that_is_there_is_left_as_it_is(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(BadRequest, match="is there already"):
        export_model(with_target, ref.name, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"mine"
    with pytest.raises(NoSuchPlace, match="a folder to write into"):
        export_model(with_target, ref.name, tmp_path / "nowhere" / "a.zip")
    with pytest.raises(UnknownName, match="lesion@2"):
        export_model(with_target, "lesion@9", tmp_path / "b.zip")


def test_of_a_write_that_fails_nothing_is_left(
    with_target: Workspace, ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

    def opened(self: Path, mode: str) -> Any:
        self.touch()
        return Full()

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(BadRequest, match="No space left on device"):
        export._put(tmp_path / "full.zip", b"x")
    assert not (tmp_path / "full.zip").exists()


def test_the_order_of_files_does_not_matter() -> None:
    assert zipped({"a": b"1", "b": b"2"}, folder="f") == zipped({"b": b"2", "a": b"1"}, folder="f")


def test_onnx_gives_the_platform_s_logits(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    done = export_model(with_target, ref.name, tmp_path / "a.zip", onnx=True)
    model = onnx.load_from_string(unpacked(done.file.read_bytes())["lesion-2/models/model.onnx"])
    from onnx.reference import ReferenceEvaluator

    from platform_core.learn.bundle import read_bundle

    x = torch.rand(3, 1, *WINDOW.grid)
    (logits,) = ReferenceEvaluator(model).run(None, {"image": x.numpy()})
    with torch.no_grad():
        expected = read_bundle(with_target, ref.bundle_uri).network(x).numpy()
    assert np.allclose(logits, expected, atol=1e-4)


def test_without_onnx_installed_one_sentence_says_what_to_install(
    with_target: Workspace, ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(BadRequest, match="pip install onnx onnxscript"):
        export_model(with_target, ref.name, tmp_path / "a.zip", onnx=True)
    assert not (tmp_path / "a.zip").exists()


def test_the_command_line_exports_a_card_and_evidence_and_no_key(
    with_target: Workspace, ref: ModelRef, tmp_path: Path
) -> None:
    keep_change_control(with_target, ref.name, at=AT)
    where = ["--workspace", with_target.uri]
    told = CliRunner().invoke(app, ["model", "export", ref.name, str(tmp_path / "a.zip"), *where])
    assert told.exit_code == 0, told.output
    found = unpacked((tmp_path / "a.zip").read_bytes())
    assert found["lesion-2/docs/README.md"].startswith(b"# Model card of lesion@2")
    assert json.loads(found["lesion-2/docs/change_control.json"])["model"] == "lesion@2"
    inside = b"".join(found.values())
    for word in (*KEYS, "Erika", str(tmp_path), with_target.settings.key_fingerprint):
        assert word.encode() not in inside, word
    again = CliRunner().invoke(app, ["model", "export", ref.name, str(tmp_path / "a.zip"), *where])
    assert isinstance(again.exception, BadRequest)


def test_the_command_line_prints_card_and_evidence(with_target: Workspace, ref: ModelRef, tmp_path: Path) -> None:
    where = ["--workspace", with_target.uri]
    card = CliRunner().invoke(app, ["model", "card", ref.name, "--html", str(tmp_path / "card.html"), *where])
    assert card.stdout.startswith("# Model card of lesion@2")
    assert (tmp_path / "card.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    evidence = CliRunner().invoke(app, ["model", "evidence", ref.name, "--json", *where])
    assert json.loads(evidence.stdout)["description_of_modifications"]["to"] == "lesion@2"
