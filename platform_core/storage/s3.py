"""Objects under an S3 prefix, and how Delta tables reach the same store.

Credentials, region and endpoint are found once, by boto3 (environment, profile, role), and
handed to deltalake, so that both always speak to the same store as the same user.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from platform_core.errors import StorageRefused, StorageUnavailable
from platform_core.settings import Environment
from platform_core.storage.objects import Stored

N_ATTEMPTS = 6
CONNECT_TIMEOUT_S = 5.0
WRITER = "sitedrift-writer"
"""Name of the metadata in which a create signs its object."""
NO_BUCKET = "make the bucket, or correct its name"
NO_ACCESS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) and the rights of this user"
NO_SUPPORT = "use a store that supports this request"
REMEDIES = {
    "NoSuchBucket": NO_BUCKET,
    "InvalidBucketName": NO_BUCKET,
    "RequestTimeTooSkewed": "set this machine's clock",
    "NotImplemented": NO_SUPPORT,
}
REFUSALS = {301: "set AWS_REGION to the bucket's region", 401: NO_ACCESS, 403: NO_ACCESS, 501: NO_SUPPORT}


@dataclass(frozen=True)
class S3Objects:
    """Objects under an S3 prefix; what the store cannot do or forbids raises `StorageRefused`."""

    bucket: str
    prefix: str

    def put(self, path: str, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - S3 always is
        """Write or replace one object; S3 puts are atomic and durable."""
        with self._telling(path):
            client().put_object(Bucket=self.bucket, Key=self._key(path), Body=data)

    def create(self, path: str, data: bytes, *, durable: bool = True) -> bool:  # noqa: ARG002
        """Put if there is none (`If-None-Match: *`).

        When the answer to a put is lost, boto3 repeats it and is told 412 by its own object;
        so each create signs what it writes and looks whose signature is there.
        """
        signature = uuid.uuid4().hex
        for attempt in range(N_ATTEMPTS):
            status = self._put_new(path, data, signature)
            if status == 412:
                return self._is_signed(path, signature)
            if status != 409:
                return True
            time.sleep(0.05 * 2**attempt)  # AWS answers 409 while another conditional put is under way
        raise StorageUnavailable(self._uri(path), "conditional puts of others kept coming between")

    def get(self, path: str) -> bytes:
        """Read one object; one that is cut short on its way is read again, which boto3 does not do."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        for attempt in range(N_ATTEMPTS):
            with self._telling(path):
                answer = client().get_object(Bucket=self.bucket, Key=self._key(path))
                try:
                    return bytes(answer["Body"].read())
                except (HTTPClientError, IncompleteReadError):
                    if attempt == N_ATTEMPTS - 1:
                        raise
            time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        try:
            self._head(path)
        except FileNotFoundError:
            return False
        return True

    def find(self, folder: str) -> Iterator[Stored]:
        """All objects below `folder`, over all pages."""
        n_skip = len(self.prefix) + bool(self.prefix)
        with self._telling(folder):
            pages = client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._folder(folder)):
                for item in page.get("Contents", []):
                    yield Stored(item["Key"][n_skip:], item["Size"], item["LastModified"])

    def list(self, folder: str) -> list[str]:
        """Paths below `folder`, sorted."""
        return sorted(found.path for found in self.find(folder))

    def delete(self, path: str) -> None:
        """Remove one object; silent if there is none."""
        with self._telling(path):
            client().delete_object(Bucket=self.bucket, Key=self._key(path))

    def sweep(self, before: datetime) -> int:
        """Give up uploads in parts that never ended (a large Parquet file comes in parts); stores charge for them."""
        n_left = 0
        with self._telling(""):
            pages = client().get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._folder("")):
                left = [upload for upload in page.get("Uploads", []) if upload["Initiated"] < before]
                for upload in left:
                    client().abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                n_left += len(left)
        return n_left

    def clock(self) -> datetime:
        """The time on the store's clock (UTC), to a second."""
        with self._telling(""):
            answer = client().list_objects_v2(Bucket=self.bucket, Prefix=self._folder(""), MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)

    def _put_new(self, path: str, data: bytes, signature: str) -> int:
        """HTTP status of a conditional put: 200, 409 or 412."""
        from botocore.exceptions import ClientError

        facts = {"Body": data, "IfNoneMatch": "*", "Metadata": {WRITER: signature}}
        with self._telling(path):
            try:
                client().put_object(Bucket=self.bucket, Key=self._key(path), **facts)
            except ClientError as error:
                if _status(error) in (409, 412):
                    return _status(error)
                raise
        return 200

    def _is_signed(self, path: str, signature: str) -> bool:
        try:
            return bool(self._head(path)["Metadata"].get(WRITER) == signature)
        except FileNotFoundError:
            return False

    def _head(self, path: str) -> Any:
        with self._telling(path):
            return client().head_object(Bucket=self.bucket, Key=self._key(path))

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def _folder(self, path: str) -> str:
        """The prefix of all keys below a folder; the whole bucket's is empty."""
        key = self._key(path).strip("/")
        return f"{key}/" if key else ""

    def _uri(self, path: str) -> str:
        return f"s3://{self.bucket}/{self._key(path)}"

    @contextmanager
    def _telling(self, path: str) -> Iterator[None]:
        """Foreign errors become ours here."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound

        try:
            yield
        except ClientError as error:
            raise self._translated(error, path) from error
        except (NoCredentialsError, ProfileNotFound) as error:
            raise StorageRefused(self._uri(path), str(error), NO_ACCESS) from error
        except (BotoCoreError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise StorageUnavailable(self._uri(path), str(error)) from error

    def _translated(self, error: Any, path: str) -> Exception:
        code, status = str(error.response["Error"]["Code"]), _status(error)
        if code in ("NoSuchKey", "404"):
            return FileNotFoundError(path)
        said = f"{code}: {error.response['Error'].get('Message') or ''}".rstrip(": ")
        remedy = REMEDIES.get(code) or REFUSALS.get(status)
        uri = self._uri(path)
        return StorageUnavailable(uri, said) if remedy is None else StorageRefused(uri, said, remedy)


def client() -> Any:
    """The S3 client of this process and environment; safe to share between threads."""
    return _connection(*_circumstances())[1]


def table_options(uri: str) -> dict[str, str]:
    """What deltalake is told to reach the store: whom boto3 speaks as, where, and how long to wait.

    Raises:
        StorageRefused: If boto3 finds no credentials.
    """
    session, s3 = _connection(*_circumstances())
    found = session.get_credentials()
    if found is None:
        raise StorageRefused(uri, "no credentials were found", NO_ACCESS)
    who = found.get_frozen_credentials()
    endpoint = str(s3.meta.endpoint_url)
    timeout_s = Environment().store_timeout_s
    options = {
        "AWS_ACCESS_KEY_ID": who.access_key,
        "AWS_SECRET_ACCESS_KEY": who.secret_key,
        "AWS_SESSION_TOKEN": who.token,
        "AWS_REGION": session.region_name or "us-east-1",
        "AWS_ENDPOINT_URL": None if "amazonaws.com" in endpoint else endpoint,
        "AWS_ALLOW_HTTP": "true" if endpoint.startswith("http://") else None,
        "timeout": f"{timeout_s:g}s",
        "connect_timeout": f"{min(timeout_s, CONNECT_TIMEOUT_S):g}s",
        "max_retries": str(N_ATTEMPTS - 1),
        "retry_timeout": f"{2 * timeout_s:g}s",
    }
    return {name: value for name, value in options.items() if value is not None}


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _circumstances() -> tuple[int, tuple[tuple[str, str], ...], float]:
    """What a connection depends on; a forked process makes its own."""
    said = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return os.getpid(), said, Environment().store_timeout_s


@lru_cache(maxsize=4)
def _connection(process: int, said: object, timeout_s: float) -> tuple[Any, Any]:  # noqa: ARG001
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=min(timeout_s, CONNECT_TIMEOUT_S),
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": N_ATTEMPTS},
        max_pool_connections=32,
        tcp_keepalive=True,
    )
    session = boto3.session.Session()
    return session, session.client("s3", config=config)
