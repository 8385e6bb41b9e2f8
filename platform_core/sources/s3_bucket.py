"""A bucket of DICOM files, of any name, and of zip archives of them.

The path is `s3://bucket/prefix`. An address is the key behind the prefix, hidden names
left out as in a folder. Credentials are those that boto3 finds, or the variable that `secret_env`
names (`access key:secret key`); the server is `endpoint`, or what boto3 finds in the
environment; AWS_CA_BUNDLE names a certificate authority of one's own.
"""

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, cast
from zipfile import ZipFile

from platform_core.errors import BadSetting, NoSuchPlace, SiteUnavailable, UnreadableScan
from platform_core.settings import SiteSettings
from platform_core.sources import archives
from platform_core.sources.contract import Item, Page, Source
from platform_core.sources.paging import PAGE, in_pages
from platform_core.sources.secrets import WHERE, not_let_in, secret_of, silence

WHAT = "the bucket"
CONNECT_S, READ_S = 10, 60
N_ATTEMPTS = 5
"""Of a request, by boto3 with back-off; and of a body that breaks off, which boto3 does not ask for again."""
WINDOW_BYTES = 64 * 2**10
"""Fetched at once from an archive: the end record with the longest comment, or a member's beginning."""
LOCAL_BYTES = 1024
"""What stands before a member's own bytes: its local header, 30 bytes with its name and extra fields."""
GONE = frozenset({"404", "NoSuchKey", "NoSuchVersion", "412", "PreconditionFailed", "InvalidArgument"})
"""An object that was deleted, replaced while it was read, or whose name cannot be a key."""
COLD = "InvalidObjectState"
"""An object in an archive class, of which S3 hands out no byte until it is restored."""
NOT_HANDED_OUT = frozenset({"400", "InvalidRequest"})
"""What is listed and not handed out: encrypted with a key that only its owner has (SSE-C)."""
NOT_LET_IN = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})


@dataclass(frozen=True, slots=True, repr=False)
class _Bucket:
    """A place on a server, and how to speak to it."""

    client: Any
    name: str
    prefix: str
    settings: SiteSettings

    def get(self, address: str, start: int, end: int | None, tag: str = "") -> bytes:
        """Bytes [start, end) of an object in the state `tag`; a body that breaks off is asked for again from there."""
        data = bytearray()
        for attempt in range(N_ATTEMPTS):
            wanted = {"IfMatch": tag} if tag else {}
            if start or data or end is not None:
                wanted["Range"] = f"bytes={start + len(data)}-{'' if end is None else end - 1}"
            try:
                answer = self.client.get_object(Bucket=self.name, Key=self.prefix + address, **wanted)
                tag = str(answer["ETag"])
                if _read_into(data, answer):
                    return bytes(data)
            except Exception as error:  # noqa: BLE001 - sorted out in one place
                if _code(error) == "InvalidRange":
                    return bytes(data)
                if not _is_broken_body(error) or attempt == N_ATTEMPTS - 1:
                    raise _translated(error, self.settings, "an object of the source") from None
        raise SiteUnavailable("an object of the source", "its body broke off again and again")

    def size(self, address: str) -> tuple[int, str]:
        """Bytes of an object, and its tag."""
        try:
            answer = self.client.head_object(Bucket=self.name, Key=self.prefix + address)
        except Exception as error:  # noqa: BLE001
            raise _translated(error, self.settings, "an object of the source") from None
        return int(answer["ContentLength"]), str(answer["ETag"])


class _Ranges(io.RawIOBase):
    """An object as a seekable file, of which only the wanted ranges travel."""

    def __init__(self, get: Callable[[int, int], bytes], n_bytes: int) -> None:
        super().__init__()
        self._get, self._n_bytes = get, n_bytes
        self._at, self._start, self._window = 0, 0, b""
        self._ahead = WINDOW_BYTES

    def fetch_next(self, n_bytes: int) -> None:
        """Ask the server for what is read next, so many bytes at once, also if they are here already."""
        self._window, self._ahead = b"", n_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._n_bytes}[whence]
        if at < 0:
            raise ValueError
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._n_bytes - self._at)
        if wanted <= 0:
            return 0
        here = self._at - self._start
        if not 0 <= here < len(self._window):
            end = min(self._n_bytes, self._at + max(wanted, self._ahead))
            self._window, self._start, here = self._get(self._at, end), self._at, 0
            self._ahead = WINDOW_BYTES
        found = self._window[here : here + wanted]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def _pages(settings: SiteSettings, cursor: str) -> Iterator[Page]:
    bucket = _bucket(settings)

    def items_of(file: Item) -> Iterator[Item]:
        if archives.is_archive(file.address):
            archives.forget()
            return archives.members(file, lambda: _opened(bucket, file.address))
        return iter((archives.plain(file),))

    return in_pages(lambda behind: _objects(bucket, behind), items_of, cursor)


def _objects(bucket: _Bucket, behind: str) -> Iterator[Item]:
    more = {"StartAfter": bucket.prefix + behind} if behind else {}
    while True:
        try:
            answer = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.prefix, MaxKeys=PAGE, **more)
        except Exception as error:  # noqa: BLE001
            raise _translated(error, bucket.settings, WHAT) from None
        for found in answer.get("Contents", ()):
            address = found["Key"][len(bucket.prefix) :]
            is_hidden = address.startswith(".") or "/." in address
            if address and not address.endswith("/") and not is_hidden:
                yield Item(address, int(found["Size"]), round(found["LastModified"].timestamp() * 1e6) * 1000)
        if not answer.get("IsTruncated"):
            return
        more = {"ContinuationToken": answer["NextContinuationToken"]}


def _open(settings: SiteSettings, address: str) -> bytes:
    return _read(settings, address, -1)


def _head(settings: SiteSettings, address: str, n_bytes: int) -> bytes:
    return _read(settings, address, n_bytes)


def _read(settings: SiteSettings, address: str, n_bytes: int) -> bytes:
    bucket = _bucket(settings)
    if "\x00" in address:
        raise _gone("an object of the source")  # no key: a server answers as if it did not hand it out
    path, member = archives.split(address)
    if not member:
        return bucket.get(address, 0, None if n_bytes < 0 else n_bytes)
    try:
        return _read_member(bucket, path, member, n_bytes)
    except NoSuchPlace:
        archives.forget()  # it was replaced since this thread opened it
        return _read_member(bucket, path, member, n_bytes)


def _read_member(bucket: _Bucket, path: str, name: str, n_bytes: int) -> bytes:
    archive = _opened(bucket, path)
    if name in archive.NameToInfo:
        packed = archive.NameToInfo[name].compress_size
        cast("_Ranges", archive.fp).fetch_next(WINDOW_BYTES if n_bytes >= 0 else packed + LOCAL_BYTES)
    return archives.read_member(archive, name, n_bytes)


def _opened(bucket: _Bucket, address: str) -> ZipFile:
    """An archive in the state in which this thread opened it; reading says that it is gone if it was replaced since."""

    def ranges() -> BinaryIO:
        n_bytes, tag = bucket.size(address)
        return cast("BinaryIO", _Ranges(lambda start, end: bucket.get(address, start, end, tag), n_bytes))

    return archives.opened_once((bucket.settings, address), ranges)


def _bucket(settings: SiteSettings) -> _Bucket:
    name, _, prefix = settings.path.removeprefix("s3://").partition("/")
    if not settings.path.startswith("s3://") or not name:
        raise NoSuchPlace(settings.path, "a bucket, s3://bucket/prefix", "correct `path` in the site's settings")
    prefix = prefix.strip("/")
    client = _client(settings.endpoint, secret_of(settings), os.getpid())
    return _Bucket(client, name, f"{prefix}/" if prefix else "", settings)


@lru_cache(maxsize=8)
def _client(endpoint: str | None, secret: str, _process: int) -> Any:
    """A client of this process, which all its threads share."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    silence()
    key, _, password = secret.partition(":")
    session = boto3.session.Session(key or None, password or None)
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"mode": "standard", "total_max_attempts": N_ATTEMPTS},
        max_pool_connections=32,
    )
    try:
        region = session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
    except (BotoCoreError, ValueError):
        raise BadSetting(WHERE, "endpoint", "is no address of an S3 server", "write https://host:port") from None


def _read_into(data: bytearray, answer: Any) -> bool:
    """Add a body to what is here already; whether it came whole. What came stays when it breaks off."""
    n_wanted = len(data) + int(answer["ContentLength"])
    for chunk in answer["Body"].iter_chunks(2**20):
        data += chunk
    return len(data) == n_wanted


def _is_broken_body(error: Exception) -> bool:
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    return isinstance(error, IncompleteReadError | ReadTimeoutError | ResponseStreamingError | HTTPError | OSError)


def _gone(what: str) -> NoSuchPlace:
    return NoSuchPlace(what, "an object that was listed and is as it was", "run again")


def _code(error: Exception) -> str:
    from botocore.exceptions import ClientError

    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _translated(error: Exception, settings: SiteSettings, what: str) -> Exception:
    """What a foreign error means here; its text is left out, because it may hold a key."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

    code = _code(error)
    if (
        code == "NoSuchBucket"
        or (code in GONE | NOT_HANDED_OUT and what == WHAT)
        or isinstance(error, ParamValidationError)
    ):
        return NoSuchPlace(settings.path, "a bucket that exists", "correct `path` or `endpoint` in the site's settings")
    if code == COLD:
        return UnreadableScan("cold_storage", "an object in an archive class of its bucket")
    if code in NOT_HANDED_OUT:
        return UnreadableScan("unreadable_object", "an object that the server lists and does not hand out")
    if code in GONE:
        return _gone(what)
    if code in NOT_LET_IN or isinstance(error, NoCredentialsError):
        return not_let_in(settings, WHAT, "access key:secret key")
    if code in {"PermanentRedirect", "301", "AuthorizationHeaderMalformed"}:
        return BadSetting(WHERE, "endpoint", "the bucket lies in another region", "set AWS_DEFAULT_REGION to it")
    if isinstance(error, ClientError | BotoCoreError | OSError) or _is_broken_body(error):
        return SiteUnavailable(what, code or type(error).__name__)
    return error


S3_BUCKET = Source(name="s3_bucket", holds="dicom", pages=_pages, open=_open, head=_head)
