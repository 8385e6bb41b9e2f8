"""Whether a store can hold a workspace: asked by trying, because what a store promises is not always what it does.

A Delta commit is a put that must fail if another writer was first. A store that looks
first and writes later lets two writers win: each is told that its rows are safe, and one
of the two commits is gone.
"""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

from platform_core.errors import StorageRefused
from platform_core.storage.objects import Objects

N_KEYS, N_WRITERS = 8, 8
"""OpenStack Swift without a lock let several of 8 writers win on 200 of 200 keys, so that few keys suffice."""
PROBES = ".sitedrift-probe"
REMEDY = (
    "Delta tables would lose rows in it; use a store with atomic conditional puts "
    "(AWS S3 and Ceph radosgw have them) or a folder"
)


def require_atomic(objects: Objects, uri: str, *, n_keys: int = N_KEYS, n_writers: int = N_WRITERS) -> None:
    """Race writers for fresh paths, then read, list and delete what they wrote; leaves nothing behind.

    Args:
        objects: The store at the address of the workspace.
        uri: That address, for messages.
        n_keys: Paths that are fought for, one after the other.
        n_writers: Writers that start at the same moment on each.

    Raises:
        StorageRefused: If not exactly one writer won each path, or what was written is not what is read.
        StorageUnavailable: If the store does not answer.
    """
    folder = f"{PROBES}/{secrets.token_hex(8)}"
    try:
        with ThreadPoolExecutor(n_writers) as pool:
            for number in range(n_keys):
                _race(objects, uri, f"{folder}/{number}", pool, n_writers)
        if len(objects.list(folder)) != n_keys:
            raise StorageRefused(uri, "a listing does not show what was just written", REMEDY)
    finally:
        for path in objects.list(folder):
            objects.delete(path)
    if objects.list(folder):
        raise StorageRefused(uri, "what was deleted is still listed", REMEDY)


def _race(objects: Objects, uri: str, path: str, pool: ThreadPoolExecutor, n_writers: int) -> None:
    start = threading.Barrier(n_writers)

    def write(number: int) -> bool:
        start.wait()
        return objects.create(path, _content(number), durable=False)

    winners = [number for number, is_winner in enumerate(pool.map(write, range(n_writers))) if is_winner]
    if objects.create(path, b"late", durable=False):
        raise StorageRefused(uri, "a conditional put (If-None-Match: *) replaced an object that was there", REMEDY)
    if len(winners) != 1:
        problem = f"{len(winners)} of {n_writers} writers won one conditional put, exactly one must"
        raise StorageRefused(uri, problem, REMEDY)
    if objects.get(path) != _content(winners[0]):
        raise StorageRefused(uri, "the writer that won a conditional put is not the one whose bytes stayed", REMEDY)


def _content(number: int) -> bytes:
    return f"writer {number}".encode()
