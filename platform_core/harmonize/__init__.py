"""Bring volumes of one site closer to the reference: one file per harmonizer, and recipes of them."""

from platform_core.catalog import collect
from platform_core.harmonize.contract import Harmonizer

HARMONIZERS = collect(__name__, Harmonizer)
