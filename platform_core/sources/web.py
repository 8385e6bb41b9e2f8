"""Speaks to a web server: asks again what may go better a second time, says everything else in our own errors.

No text of a request, an answer or a foreign error is passed on: they hold UIDs.
"""

import os
import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from platform_core.errors import BadSetting, NoSuchPlace, SiteUnavailable
from platform_core.settings import SiteSettings
from platform_core.sources.multipart import Torn, boundary_of, read_parts
from platform_core.sources.secrets import WHERE, not_let_in, secret_of, silence

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_ADDRESS = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*)?")

CONNECT_S, READ_S = 10.0, 60.0
N_ATTEMPTS = 4
BACK_OFF_S = 0.5
"""Before the second attempt; doubled before each further one."""
CHUNK_BYTES = 256 * 2**10
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
WHAT = "the DICOMweb server"


class Transient(Exception):
    """May go better a second time; its text is safe to show."""


@dataclass(frozen=True, slots=True, repr=False)
class Server:
    """One web server, and how it lets us in."""

    settings: SiteSettings
    base: str
    """Address without a slash at its end."""
    client: "httpx.Client"

    def ask(self, address: str, params: Mapping[str, str | int] | None = None, *, json: Any = None) -> Any:
        """What the server answers in JSON; an empty list if it has nothing to say. With `json`, post it.

        Raises:
            NoSuchPlace: If there is nothing at this address.
            SiteUnavailable: If the server does not answer.
            BadSetting: If it does not let us in.
        """
        method = "GET" if json is None else "POST"
        headers = {"Accept": "application/dicom+json, application/json"}

        def once() -> Any:
            answer = self.client.request(method, address, params=params, json=json, headers=headers)
            self._check(answer)
            return answer.json() if answer.content else []

        try:
            return again(once)
        except ValueError:
            remedy = "correct `path` in the site's settings"
            raise NoSuchPlace(self.base, "a server that answers in JSON", remedy) from None

    def parts(self, address: str, accept: str) -> Generator[bytes, None, None]:
        """The objects of a multipart answer, or the one that a plain answer is, as they come in; asked for once.

        Raises:
            Transient: If the answer breaks off.
        """
        headers = {"Accept": accept, "Accept-Encoding": "identity"}  # to deflate pixels costs the server more than time
        with transport_errors(), self.client.stream("GET", address, headers=headers) as answer:
            self._check(answer)
            boundary = boundary_of(answer.headers.get("Content-Type", ""))
            if boundary:
                yield from read_parts(answer.iter_bytes(CHUNK_BYTES), boundary)
            elif answer.status_code != 204:
                yield answer.read()

    def _check(self, answer: "httpx.Response") -> None:
        code = answer.status_code
        if code in TRANSIENT:
            raise Transient(f"HTTP {code}")
        if code in {401, 403}:
            raise not_let_in(self.settings, WHAT, "user:password, or a token")
        if 300 <= code < 400:
            raise BadSetting(WHERE, "path", "the server sends us elsewhere", "write the address that it sends to")
        if code >= 400:
            remedy = "run again, or correct `path` in the site's settings"
            raise NoSuchPlace(WHAT, f"an answer, found HTTP {code}", remedy)


class transport_errors:  # noqa: N801 - a context, as contextlib names its own
    """Foreign errors of a connection become `Transient`."""

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Translate."""
        import httpx

        if isinstance(error, httpx.RequestError | Torn):
            raise Transient(type(error).__name__) from None


def again(action: Callable[[], T]) -> T:
    """Do it until it goes well, at most `N_ATTEMPTS` times.

    Raises:
        SiteUnavailable: If it never does.
    """
    reason = ""
    for _ in attempts():
        try:
            with transport_errors():
                return action()
        except Transient as trouble:
            reason = str(trouble)
    raise SiteUnavailable(WHAT, reason)


def attempts() -> Iterator[int]:
    """Counts attempts, and waits between them, not in step with others that wait."""
    for attempt in range(N_ATTEMPTS):
        if attempt:
            time.sleep(BACK_OFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        yield attempt


def server_of(settings: SiteSettings) -> Server:
    """The server that a site's settings name.

    Raises:
        NoSuchPlace: If the path is no address.
        BadSetting: If it holds a password, or the variable with the password is not set.
    """
    base = settings.path.rstrip("/")
    if "@" in base.partition("://")[2].partition("/")[0]:
        remedy = "put it into an environment variable and name that in `secret_env`"
        raise BadSetting(WHERE, "path", "holds a password", remedy)
    if not _ADDRESS.fullmatch(base):
        remedy = "correct `path` in the site's settings"
        raise NoSuchPlace(base, "the address of a DICOMweb server, https://host/dicom-web", remedy)
    return Server(settings, base, _client(secret_of(settings), os.getpid()))


@lru_cache(maxsize=8)
def _client(secret: str, _process: int) -> "httpx.Client":
    """A client of this process, which all its threads share; SSL_CERT_FILE names one's own certificate authority."""
    import httpx

    silence()
    user, colon, password = secret.partition(":")
    headers = {} if colon or not secret else {"Authorization": f"Bearer {secret}"}
    return httpx.Client(
        auth=(user, password) if colon else None,
        headers=headers,
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=16, keepalive_expiry=0.8),
    )
