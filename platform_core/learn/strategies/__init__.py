"""Fine-tuning strategies, one file each."""

from platform_core.catalog import collect
from platform_core.learn.contract import Strategy

STRATEGIES = collect(__name__, Strategy)
