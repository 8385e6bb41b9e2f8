"""Loops that a compiler makes worth their while; without numba the NumPy way beside each call is taken.

Both ways do the same operations in the same order in single precision, with no fused or reordered arithmetic,
so that they give the same bits: which machine harmonized a scan cannot be told from its voxels.
"""

from functools import cache
from types import ModuleType


@cache
def compiled_loops() -> ModuleType | None:
    """The compiled loops; None where numba is missing or does not go with this NumPy.

    The first call on a machine compiles (seconds) and keeps the result beside the source, else in the user's
    cache folder, else nowhere; later processes load it.
    """
    try:
        from platform_core.harmonize.compiled import loops
    except ImportError:
        return None
    return loops
