"""A workspace: settings, sites, tables and volumes under one URI."""

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from platform_core import layout
from platform_core.errors import BadRequest, BadSetting, NotAWorkspace, UnknownName
from platform_core.imaging.nifti import decode_volume, encode_rounded, encode_volume, volume_sha256
from platform_core.imaging.volume import Volume
from platform_core.manifest.schemas import SCHEMAS
from platform_core.queries import load
from platform_core.settings import NAME, Settings, SiteSettings, TargetSettings, parse_settings, parse_site
from platform_core.storage.objects import Objects, open_objects
from platform_core.storage.probe import require_atomic
from platform_core.storage.tables import Correction, Lake

TEMPLATE = Path(__file__).with_name("sitedrift.toml.template")


@dataclass(frozen=True)
class Workspace:
    """The one handle that stages need; cheap to make from its `uri` in any process."""

    uri: str

    def __reduce__(self) -> tuple[type["Workspace"], tuple[str]]:
        """Only the address crosses into another process; connections do not."""
        return Workspace, (self.uri,)

    @cached_property
    def settings(self) -> Settings:
        """The checked settings."""
        try:
            data = self.objects.get(layout.SETTINGS)
        except FileNotFoundError as error:
            raise NotAWorkspace(self.uri) from error
        return parse_settings(data, f"{self.uri}/{layout.SETTINGS}")

    @cached_property
    def sites(self) -> dict[str, SiteSettings]:
        """Every configured hospital by name, in name order."""
        names = {layout.site_of(path): path for path in self.objects.list(layout.SITES)}
        return {
            name: parse_site(self.objects.get(path), f"{self.uri}/{path}")
            for name, path in names.items()
            if name is not None
        }

    @cached_property
    def lake(self) -> Lake:
        """The tables; readers of `core__series` see the patient that a merge has kept."""
        merged = load("platform_core.manifest", "merged_series").text
        corrections = {layout.SERIES: Correction(layout.PATIENT_MERGE, merged)}
        return Lake(f"{self.uri}/{layout.LAKE}", SCHEMAS, corrections)

    @cached_property
    def objects(self) -> Objects:
        """Volumes, models and reports by relative path."""
        return open_objects(self.uri)

    def site(self, name: str) -> SiteSettings:
        """One hospital's settings; raises `UnknownName` with those that exist."""
        if name not in self.sites:
            raise UnknownName("site", name, self.sites)
        return self.sites[name]

    def target(self, name: str) -> TargetSettings:
        """One task's settings; raises `UnknownName` with those that exist."""
        if name not in self.settings.target:
            raise UnknownName("target", name, self.settings.target)
        return self.settings.target[name]

    def read_volume(self, volume_uri: str) -> Volume:
        """The stored volume at a path relative to the workspace."""
        return decode_volume(self.objects.get(volume_uri))

    def write_volume(self, volume_uri: str, volume: Volume, *, durable: bool = True, rounded: bool = False) -> str:
        """Store a volume; returns the hash of the voxels and geometry that a reader gets back.

        `rounded` stores float32 voxels as whole multiples of a step of at most 1/32,767 of the greatest: half the
        size and time.
        """
        data, sha256 = encode_rounded(volume) if rounded else (encode_volume(volume), volume_sha256(volume))
        self.objects.put(volume_uri, data, durable=durable)
        return sha256


def open_workspace(uri: str | Path) -> Workspace:
    """The workspace at `uri`, its settings checked.

    Raises:
        NotAWorkspace: If there is none.
        BadSetting: If its settings cannot be used.
        StorageRefused: If the store lets nobody in.
    """
    workspace = Workspace(layout.workspace_uri(uri))
    _ = workspace.settings, workspace.sites
    return workspace


def create_workspace(place: str | Path, *, key_fingerprint: str) -> Workspace:
    """Make the workspace with its commented settings file; a bucket must be there, a folder need not.

    Of several who make the same workspace at the same time one succeeds.

    Raises:
        BadRequest: If a workspace is there already.
        StorageRefused: If the store cannot hold one: without atomic conditional puts it would lose rows.
    """
    require_no_workspace(place)
    uri = layout.workspace_uri(place)
    objects = open_objects(uri)
    if layout.is_remote(uri):
        require_atomic(objects, uri)
    else:
        (Path(uri) / layout.SITES).mkdir(parents=True, exist_ok=True)
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("@NAME@", workspace_name(place)).replace("@FINGERPRINT@", key_fingerprint)
    tomllib.loads(text)
    if not objects.create(layout.SETTINGS, text.encode()):
        raise _is_taken(uri)
    return open_workspace(uri)


def require_no_workspace(place: str | Path) -> None:
    """Raise `BadRequest` if there is a workspace at `place` already."""
    uri = layout.workspace_uri(place)
    if open_objects(uri).exists(layout.SETTINGS):
        raise _is_taken(uri)


def workspace_name(place: str | Path) -> str:
    """A valid name made of the last part of its address."""
    last = layout.workspace_uri(place).rsplit("/", 1)[-1].lower()
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in last).strip("-")
    return name[:63] or "workspace"


def add_site(workspace: Workspace, name: str, settings: SiteSettings) -> None:
    """Write `sites/<name>.toml`.

    Raises:
        BadRequest: If the site exists.
        BadSetting: If the name cannot be used.
    """
    if not NAME.fullmatch(name):
        problem = f"{name!r} cannot name a site"
        raise BadSetting("site add", "", problem, "use lower-case letters, digits, '-' and '_'")
    facts = settings.model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {_spelt(value)}" for key, value in facts.items()]
    path = layout.site_file(name)
    if not workspace.objects.create(path, "".join(f"{line}\n" for line in lines).encode()):
        place = f"{workspace.uri}/{path}"
        raise BadRequest(f"site {name!r} exists already ({place}); edit that file, or choose another name")


def _is_taken(uri: str) -> BadRequest:
    return BadRequest(f"{uri} is a workspace already; choose another place, or use this one as it is")


def _spelt(value: object) -> str:
    """As TOML spells it."""
    return str(value) if isinstance(value, int | float) else f'"{_escape(str(value))}"'


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
