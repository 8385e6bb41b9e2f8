"""Pages of bounded size over files of which some hold several items, and where a listing goes on."""

from collections.abc import Callable, Iterable, Iterator

from platform_core.sources.contract import Item, Page

PAGE = 1000
"""Items of a page: what S3 lists in one answer, some 300 KB in memory, and a step lost at most when a run is killed."""

Listing = Callable[[str], Iterable[Item]]
"""Files behind an address (from the beginning behind an empty one), in an order of their own."""


def in_pages(files_behind: Listing, items_of: Callable[[Item], Iterable[Item]], cursor: str) -> Iterator[Page]:
    """Lists files as pages of the items they hold.

    Args:
        files_behind: The place.
        items_of: What one file holds: itself, or the members of an archive.
        cursor: `<n>/<address>`: behind this file, without the first `n` items. Empty: from the beginning.
    """
    skipped, _, behind = cursor.partition("/")
    n_skip = int(skipped or 0)
    page: list[Item] = []
    for file in files_behind(behind):
        for index, item in enumerate(items_of(file)):
            if index < n_skip:
                continue
            if len(page) == PAGE:
                yield Page(tuple(page), f"{index}/{behind}")
                page = []
            page.append(item)
        behind, n_skip = file.address, 0
    yield Page(tuple(page))
