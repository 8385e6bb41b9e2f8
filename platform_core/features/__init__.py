"""Measure each scan: one file per family of features."""

from platform_core.catalog import collect
from platform_core.features.contract import Family

FAMILIES = collect(__name__, Family)
