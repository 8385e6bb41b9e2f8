"""How this process asks the system for memory."""

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`: man7.org/linux/man-pages/man3/mallopt.3.html."""


def keep_freed_memory() -> bool:
    """Let what an array leaves behind serve the next one, instead of going back to the system each time.

    A volume of 256 MB is 65,000 pages, and having them cleared anew costs as much as a step of a recipe: half as
    much again over a whole recipe. The price is that a process keeps the most that it ever needed.
    For processes that work through many volumes; glibc only.

    Returns:
        Whether it took effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
