"""A folder of DICOM files, of any name and nesting, and of zip archives of them."""

from collections.abc import Iterator
from pathlib import Path

from platform_core.settings import SiteSettings
from platform_core.sources.contract import Page, Source
from platform_core.sources.files import list_files, read_file


def _pages(settings: SiteSettings, cursor: str) -> Iterator[Page]:
    return list_files(_root(settings), cursor)


def _open(settings: SiteSettings, address: str) -> bytes:
    return read_file(_root(settings), address)


def _head(settings: SiteSettings, address: str, n_bytes: int) -> bytes:
    return read_file(_root(settings), address, n_bytes)


def _root(settings: SiteSettings) -> Path:
    return Path(settings.path).expanduser()


FOLDER = Source(name="folder", holds="dicom", pages=_pages, open=_open, head=_head)
