"""The Siemens CSA header of a de-identified mosaic: how many slices, and which way they grow; nothing else.

The original header also holds the protocol, with names and descriptions, and never leaves. Layout: `csa.py`.
"""

import re
import struct
from collections.abc import Mapping, Sequence

COUNT, NORMAL = "NumberOfImagesInMosaic", "SliceNormalVector"
NUMBER = re.compile(r"[+-]?\d{1,4}(\.\d{1,12})?([eE][+-]?\d{1,2})?")
CHECK = 77


def mosaic_header(facts: Mapping[str, Sequence[str]]) -> bytes | None:
    """A CSA2 header of the two facts, as `csa.parse_csa` found them; None if there is no such mosaic."""
    count, normal = list(facts.get(COUNT, []))[:1], list(facts.get(NORMAL, []))[:3]
    if len(count) != 1 or len(normal) != 3 or not all(NUMBER.fullmatch(value) for value in count + normal):
        return None
    header = b"SV10\x04\x03\x02\x01" + struct.pack("<II", 2, CHECK)
    return header + _tag(COUNT, "US", count) + _tag(NORMAL, "FD", normal)


def _tag(name: str, vr: str, values: Sequence[str]) -> bytes:
    parts = [struct.pack("<64si4siii", name.encode(), len(values), vr.encode(), 0, len(values), CHECK)]
    for value in values:
        n = len(value)
        parts += [struct.pack("<4i", n, n, CHECK, n), value.encode().ljust((n + 3) // 4 * 4, b"\x00")]
    return b"".join(parts)
