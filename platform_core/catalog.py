"""One file, one plug-in.

A plug-in is a module-level instance of a frozen dataclass. Adding a file to the
package offers it; deleting the file withdraws it. Nothing is registered at a distance.
Modules are imported at the first question, so a package may keep its stage beside its plug-ins
and still be light to import.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from operator import attrgetter
from pkgutil import iter_modules
from typing import Protocol, TypeVar

from platform_core.errors import DuplicateName, UnknownName


class Plugin(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The name that settings and tables use."""


T = TypeVar("T", bound=Plugin)


class Catalog(Mapping[str, T]):
    """Read-only plug-ins by name, in name order, with a helpful `KeyError`.

    `plugins` is read at the first question; two of one name then raise `DuplicateName`.
    """

    def __init__(self, kind: str, plugins: Iterable[T]) -> None:
        self.kind = kind
        self._plugins = plugins

    @cached_property
    def _by_name(self) -> dict[str, T]:
        by_name: dict[str, T] = {}
        for plugin in sorted(self._plugins, key=attrgetter("name")):
            if by_name.setdefault(plugin.name, plugin) is not plugin:
                raise DuplicateName(self.kind, plugin.name)
        return by_name

    def __getitem__(self, name: str) -> T:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownName(self.kind, name, self) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


@dataclass(frozen=True, slots=True)
class _InModules(Iterable[T]):
    """Every module-level instance of `kind` in the modules of `package`."""

    package: str
    kind: type[T]

    def __iter__(self) -> Iterator[T]:
        names = (module.name for module in iter_modules(import_module(self.package).__path__))
        modules = [import_module(f"{self.package}.{name}") for name in names]
        found = {
            id(value): value for module in modules for value in vars(module).values() if isinstance(value, self.kind)
        }
        return iter(found.values())


def collect(package: str, kind: type[T]) -> Catalog[T]:
    """Offer every module-level `kind` in the modules of `package`."""
    return Catalog(kind.__name__.lower(), _InModules(package, kind))
