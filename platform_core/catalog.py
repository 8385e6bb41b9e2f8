"""One file, one plug-in.

A plug-in is a module-level instance of a frozen dataclass. Adding a file to the
package offers it; deleting the file withdraws it. Nothing is registered at a distance.
"""

from collections.abc import Iterable, Iterator, Mapping
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
    """Read-only plug-ins by name, in name order, with a helpful `KeyError`."""

    def __init__(self, kind: str, plugins: Iterable[T]) -> None:
        self.kind = kind
        self._by_name: dict[str, T] = {}
        for plugin in sorted(plugins, key=attrgetter("name")):
            if self._by_name.setdefault(plugin.name, plugin) is not plugin:
                raise DuplicateName(kind, plugin.name)

    def __getitem__(self, name: str) -> T:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownName(self.kind, name, self) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


def collect(package: str, kind: type[T]) -> Catalog[T]:
    """Gather every module-level `kind` in the modules of `package`."""
    names = (module.name for module in iter_modules(import_module(package).__path__))
    modules = [import_module(f"{package}.{name}") for name in names]
    found = {id(value): value for module in modules for value in vars(module).values() if isinstance(value, kind)}
    return Catalog(kind.__name__.lower(), found.values())
