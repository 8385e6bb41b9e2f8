"""Weights over https from a server of this machine: the right file, a wrong one, half of one, and none at all."""

import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import torch

from platform_core.errors import StorageUnavailable, UnusableWeights
from platform_core.learn import checkpoints
from platform_core.learn.checkpoints import find_checkpoint
from platform_core.learn.networks import NETWORKS, build_network
from platform_core.learn.transplant import transplant
from platform_core.manifest.workspace import Workspace

x509 = pytest.importorskip("cryptography.x509")


@dataclass
class Hub:
    """What the server answers by path: data, and how it sends them."""

    address: str
    data: bytes
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"{self.address}/{path}?token=secret"


def weights() -> bytes:
    out = BytesIO()
    torch.manual_seed(2)
    torch.save(NETWORKS["resnet_tiny"].whole(2).state_dict(), out)
    return out.getvalue()


def certificate(folder: Path) -> Path:
    """For 127.0.0.1, signed by itself, with its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    made = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(here, critical=False).sign(key, hashes.SHA256())
    file = folder / "hub.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server that this process trusts."""
    there = Hub(address="", data=weights())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].lstrip("/")
            there.asked.append(path)
            if path == "silent":
                time.sleep(1.5)
            if path in ("gone", "broken"):
                return self.send_error(404 if path == "gone" else 503)
            self.send_response(200)
            self.send_header("Content-Length", str(len(there.data)))
            self.end_headers()
            return self.send(there.data[:5000] if path == "half" else there.data, slowly=path == "drips")

        def send(self, data: bytes, *, slowly: bool) -> None:
            for start in range(0, len(data), 50_000 if slowly else len(data)):
                time.sleep(0.2 if slowly else 0)
                self.wfile.write(data[start : start + 50_000] if slowly else data)

        def log_message(self, *_: object) -> None: ...

    file = certificate(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    there.address = f"https://127.0.0.1:{server.server_port}"
    yield there
    server.shutdown()


def test_a_file_of_a_hub_fills_the_network(workspace: Workspace, hub: Hub) -> None:
    found = find_checkpoint(workspace, hub.url("tiny.pt"), sha256=sha256(hub.data).hexdigest())
    assert found.where == "https://127.0.0.1/tiny.pt"
    network = build_network("resnet_tiny", 2)
    assert transplant(found, network, "resnet_tiny", 2).share == 1
    wanted = torch.load(BytesIO(hub.data), weights_only=True)["layer2.0.conv1.weight"]
    assert torch.equal(network.state_dict()["blocks.block2.0.conv1.weight"], wanted)


def test_another_file_than_the_one_that_was_meant_is_refused(workspace: Workspace, hub: Hub) -> None:
    with pytest.raises(UnusableWeights, match="expected sha256 0000") as refused:
        find_checkpoint(workspace, hub.url("tiny.pt"), sha256="0" * 64)
    assert refused.value.reason == "changed"
    assert "secret" not in str(refused.value)


def test_half_a_file_can_be_asked_for_again(workspace: Workspace, hub: Hub) -> None:
    """Not `damaged`, which nobody would try a second time."""
    with pytest.raises(StorageUnavailable, match=f"ended after 5000 of {len(hub.data)} bytes"):
        find_checkpoint(workspace, hub.url("half"))


def test_a_server_that_says_nothing_is_not_waited_for(
    workspace: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "TIMEOUT_S", 0.3)
    with pytest.raises(StorageUnavailable, match="or fetch the file by hand"):
        find_checkpoint(workspace, hub.url("silent"))


def test_a_server_that_drips_is_not_waited_for(workspace: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MOST_SECONDS", 0.3)
    with pytest.raises(StorageUnavailable, match=r"bytes came in .* fetch the file by hand"):
        find_checkpoint(workspace, hub.url("drips"))


@pytest.mark.parametrize(("path", "kind"), [("gone", UnusableWeights), ("broken", StorageUnavailable)])
def test_no_is_told_from_not_now(workspace: Workspace, hub: Hub, path: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the server answers"):
        find_checkpoint(workspace, hub.url(path))
    assert hub.asked == [path]


def test_a_server_that_nobody_vouches_for_is_not_believed(
    workspace: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(StorageUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        find_checkpoint(workspace, hub.url("tiny.pt"))
    assert hub.asked == []
