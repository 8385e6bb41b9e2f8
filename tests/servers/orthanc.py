"""A real Orthanc with its DICOMweb plug-in, on loopback, behind a password; starts in some 0.3 s.

Only HTTP is served, and only to this machine. `TCP_NODELAY` because without it small answers wait 40 ms;
a time zone far from UTC, because its times must not depend on one.
"""

import base64
import json
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from platform_core.settings import SiteSettings
from tests.servers import Kept, answers, free_port, need, wait_until

INSTALL = (
    "RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends orthanc orthanc-dicomweb"
)
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SECRET_ENV = "SITEDRIFT_TEST_ORTHANC"


@dataclass
class Orthanc:
    """A server, its store, and who may ask it."""

    folder: Path
    port: int = field(default_factory=free_port)
    secret: str = field(default="ingest:secret", repr=False)
    _kept: Kept | None = field(default=None, repr=False)

    @property
    def root(self) -> str:
        """Address of its own interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> SiteSettings:
        """A site whose scans lie here."""
        return SiteSettings(source="dicomweb", path=f"{self.root}/dicom-web", secret_env=SECRET_ENV)

    def start(self) -> None:
        """Start on what the store holds."""
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self._configuration()))
        program = need("Orthanc", INSTALL)
        if not PLUGIN.exists():
            need(str(PLUGIN), INSTALL)
        self._kept = Kept([program, str(file)], self.folder / "log", {"TCP_NODELAY": "1", "TZ": "Asia/Tokyo"})
        wait_until(lambda: answers(self.port), "Orthanc", self._kept.log)

    def kill(self) -> None:
        """End it without a warning; what it has stored stays."""
        if self._kept is not None:
            self._kept.stop()
        self._kept = None

    def send(self, objects: Iterable[bytes]) -> None:
        """Store DICOM objects, in this order."""
        for data in objects:
            assert self.ask("/instances", data)["Status"] == "Success"

    def ask(self, path: str, data: bytes | None = None, method: str | None = None) -> Any:
        """What its own interface says in JSON; None if nothing."""
        password = base64.b64encode(self.secret.encode()).decode()
        request = urllib.request.Request(f"{self.root}{path}", data, {"Authorization": f"Basic {password}"})
        request.method = method or request.get_method()
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def _configuration(self) -> dict[str, Any]:
        user, _, password = self.secret.partition(":")
        return {
            "Name": "north",
            "StorageDirectory": str(self.folder / "store"),
            "IndexDirectory": str(self.folder / "store"),
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {user: password},
            "DicomServerEnabled": False,
            "MaximumPduLength": 131072,
            "StableAge": 1,
            "OverwriteInstances": True,
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }


@pytest.fixture
def orthanc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Orthanc]:
    """An empty server; the environment holds its password."""
    folder = Path(tempfile.mkdtemp(prefix="sitedrift-orthanc-"))
    server = Orthanc(folder)
    monkeypatch.setenv(SECRET_ENV, server.secret)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
