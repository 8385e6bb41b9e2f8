"""The table of rooms in platform_core/README.md, held against the imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = ("errors", "settings", "layout", "catalog", "queries", "provenance", "clock")
ROOMS = (
    "storage",
    "imaging",
    "dicom",
    "sources",
    "manifest",
    "harmonize",
    "features",
    "quality",
    "phantom",
    "shift",
    "policy",
    "learn",
    "trial",
    "lineage",
    "report",
)
RESTRICTED = {
    "duckdb": set(GROUND),
    "boto3": {"storage", "sources"},
    "deltalake": {"storage"},
    "SimpleITK": {"imaging", "harmonize", "features", "phantom"},
    "pydicom": {"dicom", "phantom"},
    "httpx": {"sources"},
    "great_expectations": {"quality"},
    "torch": {"learn", "harmonize"},
    "monai": {"learn"},
    "lightning": {"learn"},
    "lightning_fabric": {"learn"},
    "mlflow": {"learn"},
    "plotly": {"report"},
    "jinja2": {"report"},
}
LAYERS = {"platform_core": set(), "tasks": {"platform_core"}, "flows": {"tasks", "platform_core"}}
LAYERS["infra"] = {"flows", "tasks", "platform_core"}
HEAVY = ("prefect", "torch", "monai", "SimpleITK", "great_expectations", "duckdb", "deltalake", "pyarrow", "pandas",
         "scipy", "numpy", "plotly", "pydicom", "boto3")  # fmt: skip


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room_of(file: Path) -> str:
    part = file.relative_to(ROOT / "platform_core").parts[0]
    return part.removesuffix(".py")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_the_layers_below_it(layer: str) -> None:
    forbidden = LAYERS.keys() - LAYERS[layer] - {layer}
    wrong = [(f.name, name) for f in modules(layer) for name in imports(f) if name.split(".")[0] in forbidden]
    assert wrong == []


def test_the_domain_does_not_know_the_orchestrator() -> None:
    wrong = [f.name for f in modules("platform_core") for name in imports(f) if name.split(".")[0] == "prefect"]
    assert wrong == []


def test_every_room_is_in_the_table() -> None:
    found = {p.name for p in (ROOT / "platform_core").iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert found <= set(ROOMS)


def test_a_room_imports_only_rooms_above_it() -> None:
    wrong = []
    for file in modules("platform_core"):
        room = room_of(file)
        allowed = set(GROUND) | (set(ROOMS[: ROOMS.index(room) + 1]) if room in ROOMS else set())
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "platform_core" and len(parts) > 1 and parts[1] in {*ROOMS, *GROUND} - allowed:
                wrong.append((str(file.relative_to(ROOT)), name))
    assert wrong == []


def test_a_restricted_library_stays_in_its_rooms() -> None:
    wrong = []
    for file in modules("platform_core"):
        for name in imports(file):
            library = name.split(".")[0]
            if library in RESTRICTED and room_of(file) not in RESTRICTED[library]:
                wrong.append((str(file.relative_to(ROOT)), library))
    assert wrong == []


KINDS = ("harmonize", "features", "sources", "shift", "quality", "learn/strategies", "learn/adaptations")


@pytest.mark.parametrize("kind", KINDS)
def test_plug_in_siblings_do_not_import_one_another(kind: str) -> None:
    folder = ROOT / "platform_core" / kind
    package = "platform_core." + kind.replace("/", ".")
    holds_plugin = {f.stem for f in folder.glob("*.py") if _defines_a_plugin(f)}
    wrong = [
        (f.name, name)
        for f in folder.glob("*.py")
        if f.stem in holds_plugin
        for name in imports(f)
        if any(name == f"{package}.{other}" for other in holds_plugin - {f.stem})
    ]
    assert wrong == []


def _defines_a_plugin(file: Path) -> bool:
    kinds = {"Harmonizer", "Family", "Source", "Statistic", "Rule", "Strategy", "Adaptation"}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Call):
            name = value.func.id if isinstance(value.func, ast.Name) else ""
            if name in kinds:
                return True
    return False


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
