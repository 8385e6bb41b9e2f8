"""A folder of DICOM files, of any name and nesting."""

from collections.abc import Iterator
from pathlib import Path

from platform_core.settings import SiteSettings
from platform_core.sources.contract import Page, Source
from platform_core.sources.files import list_files, read_file


def _pages(settings: SiteSettings, _cursor: str) -> Iterator[Page]:
    return list_files(Path(settings.path).expanduser())


def _open(settings: SiteSettings, address: str) -> bytes:
    return read_file(Path(settings.path).expanduser(), address)


def _head(settings: SiteSettings, address: str, n_bytes: int) -> bytes:
    return read_file(Path(settings.path).expanduser(), address, n_bytes)


FOLDER = Source(name="folder", holds="dicom", pages=_pages, open=_open, head=_head)
