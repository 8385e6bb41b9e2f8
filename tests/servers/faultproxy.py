"""A network that fails on purpose: a proxy in front of an HTTP server on loopback.

It reads whole requests and whole answers, so that a fault falls exactly where a rule says.
Signed requests pass, because the `Host` header is left as the client wrote it. The proxy is
a process of its own: some calls of deltalake hold the interpreter until they are answered.
"""

import asyncio
import contextlib
import json
import random
import re
import socket
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Fault = Literal["reset_before", "reset_after", "unavailable", "truncate", "stall"]
"""What goes wrong.

reset_before: the connection breaks before the server has seen the request;
reset_after: the server has done it and the answer is lost (a lost acknowledgement);
unavailable: 503 SlowDown; truncate: half of the answer's body, then the end;
stall: no answer at all until the client gives up.
"""
FAULTS: tuple[Fault, ...] = ("reset_before", "reset_after", "unavailable", "truncate", "stall")
CONTROL = "/__faults__"
SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>injected</Message></Error>'
LIMIT_BYTES = 1 << 26

Headers = dict[str, str]
Choose = Callable[[str, str], Fault | None]
"""The fault of one request by its method and path."""
Logged = tuple[str, str, Fault | None]


@dataclass
class Rule:
    """Some requests, counted in the order of their arrival, that go wrong in one way."""

    do: Fault
    method: str = ""
    path: str = ""
    """Regular expression that is found in the path and query."""
    first: int = 1
    times: int = 1
    n_seen: int = field(default=0, init=False)

    def meets(self, method: str, path: str) -> bool:
        """Whether this request is one of them."""
        if self.method not in ("", method) or re.search(self.path, path) is None:
            return False
        self.n_seen += 1
        return self.first <= self.n_seen < self.first + self.times


@dataclass(frozen=True)
class FaultProxy:
    """A running proxy, as tests see it."""

    port: int

    @property
    def endpoint(self) -> str:
        """Where clients are to go."""
        return f"http://127.0.0.1:{self.port}"

    def fail(self, *rules: Rule) -> None:
        """From now on these rules hold, and no others; the log starts anew."""
        told = [{name: value for name, value in asdict(rule).items() if name != "n_seen"} for rule in rules]
        self._ask({"rules": told})

    def fail_by_chance(self, seed: int, share: float) -> None:
        """From now on a share of all requests fails; a request fails alike in any interleaving with others."""
        self._ask({"seed": seed, "share": share})

    @property
    def log(self) -> list[Logged]:
        """Method, path and fault of every request since the rules were set."""
        return [(method, path, fault) for method, path, fault in self._ask(None)]

    def count(self, fault: Fault | None) -> int:
        """How many requests met this fault."""
        return sum(done == fault for _, _, done in self.log)

    def _ask(self, what: object) -> Any:
        data = None if what is None else json.dumps(what).encode()
        with urllib.request.urlopen(self.endpoint + CONTROL, data=data, timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def fault_proxy(upstream_port: int, folder: Path) -> Iterator[FaultProxy]:
    """A proxy in front of a loopback port; without rules it changes nothing."""
    from tests.servers import Kept, answers, free_port, wait_until

    port = free_port()
    kept = Kept([sys.executable, __file__, str(port), str(upstream_port)], folder / "faultproxy.log")
    try:
        wait_until(lambda: answers(port), "the fault proxy", kept.log)
        yield FaultProxy(port)
    finally:
        kept.stop()


class _Server:
    """The proxy itself."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.choose: Choose = _by_rules([])
        self.log: list[Logged] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, limit=LIMIT_BYTES)
        up_writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._exchange(reader, writer, up_reader, up_writer):
                pass
        for end in (up_writer, writer):
            end.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether another may follow on the same connection."""
        head, first_line, headers = await _head(reader)
        method, path, _ = first_line.split(" ", 2)
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)expect: 100-continue\r\n", b"", head)
        body = await _body(reader, headers)
        if path == CONTROL:
            return await _say(writer, b"200 OK", self._control(body))
        fault = self.choose(method, path)
        self.log.append((method, path, fault))
        if fault == "reset_before":
            return _reset(writer)
        if fault == "stall":
            await reader.read(1)
            return _reset(writer)
        if fault == "unavailable":
            return await _say(writer, b"503 Slow Down", SLOW_DOWN, is_empty=method == "HEAD")
        up_writer.write(head + body)
        answer_head, answer_headers, answer = await _answer(up_reader, method)
        if fault == "reset_after":
            return _reset(writer)
        is_cut = fault == "truncate" and bool(answer)
        writer.write(answer_head + (answer[: len(answer) // 2] if is_cut else answer))
        await writer.drain()
        return not is_cut and answer_headers.get("connection", "").lower() != "close"

    def _control(self, body: bytes) -> bytes:
        if not body:
            return json.dumps(self.log).encode()
        told = json.loads(body)
        self.log.clear()
        if "rules" in told:
            self.choose = _by_rules([Rule(**rule) for rule in told["rules"]])
        else:
            self.choose = _by_chance(told["seed"], told["share"])
        return b"[]"


def _by_rules(rules: list[Rule]) -> Choose:
    return lambda method, path: next((rule.do for rule in rules if rule.meets(method, path)), None)


def _by_chance(seed: int, share: float) -> Choose:
    tries: Counter[tuple[str, str]] = Counter()

    def choose(method: str, path: str) -> Fault | None:
        tries[method, path] += 1
        dice = random.Random(f"{seed}/{method}/{path}/{tries[method, path]}")
        return dice.choice(FAULTS) if dice.random() < share else None

    return choose


def _reset(writer: asyncio.StreamWriter) -> bool:
    writer.transport.abort()
    return False


async def _say(writer: asyncio.StreamWriter, status: bytes, text: bytes, *, is_empty: bool = False) -> bool:
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(text)
    writer.write(head + (b"" if is_empty else text))
    await writer.drain()
    return True


async def _answer(reader: asyncio.StreamReader, method: str) -> tuple[bytes, Headers, bytes]:
    while True:
        head, first_line, headers = await _head(reader)
        status = int(first_line.split(" ")[1])
        if status != 100:
            break
    is_empty = method == "HEAD" or status in (204, 304)
    is_open_ended = not {"content-length", "transfer-encoding"} & headers.keys()
    if is_open_ended and not is_empty:  # the end of the connection ends it, as Orthanc answers
        return head, headers, await reader.read()
    return head, headers, b"" if is_empty else await _body(reader, headers)


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, str, Headers]:
    raw = await reader.readuntil(b"\r\n\r\n")
    first_line, *lines = raw.decode("latin1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return raw, first_line, {name.strip().lower(): value.strip() for name, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Headers) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    raw = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        n_bytes = int(size.split(b";")[0], 16)
        raw += size + await reader.readexactly(n_bytes + 2)
        if n_bytes == 0:
            return raw


async def _main(port: int, upstream_port: int) -> None:
    server = await asyncio.start_server(_Server(upstream_port).serve, "127.0.0.1", port, limit=LIMIT_BYTES)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
