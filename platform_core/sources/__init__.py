"""Where scans come from: one file per kind of place."""

from platform_core.catalog import collect
from platform_core.sources.contract import Source

SOURCES = collect(__name__, Source)
