"""Rules about a batch of scans, and the run that checks them."""

from platform_core.catalog import Catalog, collect
from platform_core.quality.contract import Rule

RULES: Catalog[Rule] = collect(__name__, Rule)
