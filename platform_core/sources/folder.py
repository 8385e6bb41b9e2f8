"""A folder of DICOM files, of any name and nesting."""

from collections.abc import Iterator
from pathlib import Path

from platform_core.settings import SiteSettings
from platform_core.sources.contract import Item, Source
from platform_core.sources.files import list_files, read_file


def _items(settings: SiteSettings) -> Iterator[Item]:
    return list_files(Path(settings.path).expanduser())


def _open(settings: SiteSettings, address: str) -> bytes:
    return read_file(Path(settings.path).expanduser(), address)


FOLDER = Source(name="folder", holds="dicom", items=_items, open=_open)
