"""An S3 server whose conditional put is not atomic, as OpenStack Swift's is not: it looks first and writes later.

In memory, without authentication, and only what a workspace asks for.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

LOOK_TO_WRITE_S = 0.02
"""Time between looking and writing."""


class Careless(ThreadingHTTPServer):
    """Holds every bucket there could be."""

    daemon_threads = True

    def __init__(self, *, is_blind: bool = False) -> None:
        """A blind one does not look at all: it ignores the condition."""
        self.is_blind = is_blind
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def careless(*, is_blind: bool = False) -> Iterator[Careless]:
    """Runs until the end of the block."""
    server = Careless(is_blind=is_blind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Careless

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        is_taken = self._key in self.server.objects and not self.server.is_blind
        if is_taken and self.headers["If-None-Match"] == "*":
            return self._send(412, _error("PreconditionFailed"))
        time.sleep(LOOK_TO_WRITE_S)
        kept = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
        self.server.objects[self._key] = data, kept
        return self._send(200)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            prefix = f"{self._key}/{query.get('prefix', [''])[0]}"
            n_skip = len(self._key) + 1
            names = sorted(key[n_skip:] for key in self.server.objects if key.startswith(prefix))
            return self._send(200, _listing(names))
        return self._send_object()

    def do_HEAD(self) -> None:
        self._send_object()

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._key, None)
        self._send(204)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _send_object(self) -> None:
        if self._key not in self.server.objects:
            return self._send(404, _error("NoSuchKey"))
        data, kept = self.server.objects[self._key]
        return self._send(200, data, kept)

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def _listing(names: list[str]) -> bytes:
    at = "2026-01-01T00:00:00.000Z"
    items = "".join(
        f"<Contents><Key>{escape(name)}</Key><LastModified>{at}</LastModified><Size>1</Size></Contents>"
        for name in names
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()
