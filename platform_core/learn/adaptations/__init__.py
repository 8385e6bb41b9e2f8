"""Adaptations without labels, one file each."""

from platform_core.catalog import collect
from platform_core.learn.contract import Adaptation

ADAPTATIONS = collect(__name__, Adaptation)
