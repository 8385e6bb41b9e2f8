"""What every test may ask for: an empty workspace with its own key, and real scans."""

import os
from pathlib import Path

import pytest

from platform_core.manifest.door import create_key
from platform_core.manifest.workspace import Workspace, create_workspace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for keys and door books, outside any workspace."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SITEDRIFT_HOME", str(folder))
    monkeypatch.delenv("SITEDRIFT_KEY", raising=False)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, home: Path) -> Workspace:
    """An empty workspace."""
    return create_workspace(tmp_path / "w", key_fingerprint=create_key("w"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real scans: `SITEDRIFT_TEST_DATA`, else the subset that comes with the repository."""
    return Path(os.environ.get("SITEDRIFT_TEST_DATA", Path(__file__).parent / "data")).resolve()
