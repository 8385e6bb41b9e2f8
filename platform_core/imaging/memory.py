"""How many volumes are held at once: a stated number of bytes and of workers for the whole process."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Condition

from platform_core.errors import UnreadableScan
from platform_core.settings import Environment


class Budget:
    """Bytes and workers that are free; who needs more than is free waits."""

    def __init__(self, n_bytes: int, n_workers: int) -> None:
        self.n_bytes, self.n_workers = n_bytes, n_workers
        self._free_bytes, self._free_workers = n_bytes, n_workers
        self._changed = Condition()

    @contextmanager
    def room(self, n_bytes: int) -> Iterator[None]:
        """Hold so many bytes and one worker inside the block.

        Raises:
            UnreadableScan: `memory_budget` if even the whole budget would not do.
        """
        if n_bytes > self.n_bytes:
            needed, stated = n_bytes / 2**30, self.n_bytes / 2**30
            raise UnreadableScan(
                "memory_budget", f"needs {needed:.1f} GiB of memory; SITEDRIFT_MEMORY_GIB is {stated:g}"
            )
        with self._changed:
            self._changed.wait_for(lambda: self._free_workers > 0 and self._free_bytes >= n_bytes)
            self._take(n_bytes, 1)
        try:
            yield
        finally:
            with self._changed:
                self._take(-n_bytes, -1)
                self._changed.notify_all()

    def _take(self, n_bytes: int, n_workers: int) -> None:
        self._free_bytes -= n_bytes
        self._free_workers -= n_workers


@lru_cache(maxsize=1)
def budget() -> Budget:
    """The one budget of this process, as the environment states it when it is first asked for."""
    environment = Environment()
    return Budget(int(environment.memory_gib * 2**30), environment.n_workers)
