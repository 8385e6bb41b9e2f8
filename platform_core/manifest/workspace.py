"""A workspace: settings, sites, tables and volumes under one URI."""

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from platform_core import layout
from platform_core.errors import BadRequest, BadSetting, NotAWorkspace, UnknownName
from platform_core.imaging.nifti import decode_volume, encode_volume, volume_sha256
from platform_core.imaging.volume import Volume
from platform_core.manifest.schemas import SCHEMAS
from platform_core.queries import load
from platform_core.settings import NAME, Settings, SiteSettings, TargetSettings, read_settings, read_site
from platform_core.storage.objects import Objects, open_objects
from platform_core.storage.tables import Correction, Lake

TEMPLATE = Path(__file__).with_name("sitedrift.toml.template")


@dataclass(frozen=True)
class Workspace:
    """The one handle that stages need; cheap to make from its `uri` in any process."""

    uri: str

    @cached_property
    def settings(self) -> Settings:
        """The checked settings."""
        path = Path(self.uri) / layout.SETTINGS
        if not path.is_file():
            raise NotAWorkspace(self.uri)
        return read_settings(path)

    @cached_property
    def sites(self) -> dict[str, SiteSettings]:
        """Every configured hospital by name, in name order."""
        files = sorted((Path(self.uri) / layout.SITES).glob("*.toml"))
        return {file.stem: read_site(file) for file in files}

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

    def write_volume(self, volume_uri: str, volume: Volume, *, durable: bool = True) -> str:
        """Store a volume; returns the hash of its voxels and geometry."""
        self.objects.put(volume_uri, encode_volume(volume), durable=durable)
        return volume_sha256(volume)


def open_workspace(uri: str | Path) -> Workspace:
    """The workspace at `uri`, its settings checked.

    Raises:
        NotAWorkspace: If there is none.
        BadSetting: If its settings cannot be used.
    """
    workspace = Workspace(str(Path(uri).resolve()))
    _ = workspace.settings, workspace.sites
    return workspace


def create_workspace(path: Path, *, key_fingerprint: str) -> Workspace:
    """Make the folder and its commented settings file.

    Raises:
        BadRequest: If a workspace is there already.
    """
    require_no_workspace(path)
    (path / layout.SITES).mkdir(parents=True, exist_ok=True)
    name = workspace_name(path)
    text = TEMPLATE.read_text(encoding="utf-8").replace("@NAME@", name).replace("@FINGERPRINT@", key_fingerprint)
    tomllib.loads(text)
    (path / layout.SETTINGS).write_text(text, encoding="utf-8")
    return open_workspace(path)


def require_no_workspace(path: Path) -> None:
    """Raise `BadRequest` if there is a workspace at `path` already."""
    if (path / layout.SETTINGS).exists():
        raise BadRequest(f"{path} is a workspace already; choose another folder, or use this one as it is")


def workspace_name(path: Path) -> str:
    """A valid name made of the folder's own."""
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in path.resolve().name.lower()).strip("-")
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
    file = Path(workspace.uri) / layout.site_file(name)
    if file.exists():
        raise BadRequest(f"site {name!r} exists already ({file}); edit that file, or choose another name")
    facts = settings.model_dump(mode="json", exclude_none=True)
    lines = [f'{key} = "{_escape(str(value))}"' for key, value in facts.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
