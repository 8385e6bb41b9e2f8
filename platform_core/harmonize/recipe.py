"""Ordered harmonizers: as written in the settings, and with what each step learned at one site."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from platform_core.errors import BadSetting, GeometryMismatch, UnreadableScan
from platform_core.harmonize import HARMONIZERS
from platform_core.harmonize.contract import Harmonizer, Learned, nothing_to_learn
from platform_core.imaging.volume import Volume
from platform_core.provenance import digest
from platform_core.settings import Settings, StepSettings


@dataclass(frozen=True, slots=True)
class Step:
    """One harmonizer with its checked settings."""

    harmonizer: Harmonizer
    settings: Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order, nothing learned yet."""

    steps: tuple[Step, ...]

    @property
    def learns(self) -> bool:
        """Whether fitting needs to see volumes."""
        return any(step.harmonizer.fit is not nothing_to_learn for step in self.steps)


@dataclass(frozen=True, slots=True)
class FittedStep:
    """One step and what it learned."""

    step: Step
    learned: Learned


@dataclass(frozen=True, slots=True)
class FittedRecipe:
    """Everything that is needed to repeat a result on any worker."""

    steps: tuple[FittedStep, ...]

    @property
    def recipe(self) -> Recipe:
        """The steps without what they learned."""
        return Recipe(tuple(fitted.step for fitted in self.steps))

    @property
    def name(self) -> str:
        """A hash of all steps, settings and learned parameters."""
        return digest(self._facts())

    def to_json(self) -> str:
        """Strict JSON: a list of `harmonizer`, `settings` and `learned`."""
        return json.dumps(self._facts(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "FittedRecipe":
        """The recipe that `to_json` wrote.

        Raises:
            UnknownName: If a harmonizer does not exist any more.
            BadSetting: If it does not take its settings any more, or now gives other voxels than when it was fitted.
        """
        facts = json.loads(text)
        written = [StepSettings(harmonizer=fact["harmonizer"], **fact["settings"]) for fact in facts]
        steps = parse_recipe(written).steps
        for step, fact in zip(steps, facts, strict=True):
            _refuse_other_version(step.harmonizer, fact.get("version", 1))
        return cls(tuple(FittedStep(step, fact["learned"]) for step, fact in zip(steps, facts, strict=True)))

    def _facts(self) -> list[Any]:
        return [
            {
                "harmonizer": fitted.step.harmonizer.name,
                "version": fitted.step.harmonizer.version,
                "settings": asdict(fitted.step.settings),
                "learned": fitted.learned,
            }
            for fitted in self.steps
        ]


@dataclass(frozen=True, slots=True)
class Applied:
    """A harmonized volume, its label map, and the steps that did not apply to it as `harmonizer:reason`."""

    volume: Volume
    skipped: tuple[str, ...]
    label: Volume | None = None


@dataclass(frozen=True, slots=True)
class _Prepared(Sequence[Volume]):
    """A sample as the steps so far leave it, made anew at each reading so that only one volume is in memory."""

    sample: Sequence[Volume]
    steps: FittedRecipe

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Prepared(self.sample[index], self.steps)
        return apply_recipe(self.steps, self.sample[index]).volume


@dataclass(frozen=True, slots=True)
class _Chosen(Sequence[Volume]):
    """Some places of a sample."""

    sample: Sequence[Volume]
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Chosen(self.sample, self.places[index])
        return self.sample[self.places[index]]


def parse_recipe(steps: Sequence[StepSettings], *, where: str = "recipe") -> Recipe:
    """Check every step as written, before the first scan is read.

    Args:
        steps: Steps of the settings file.
        where: The key that errors name, e.g. `target.lesion.recipe`.

    Raises:
        UnknownName: If a harmonizer does not exist; lists those that do.
        BadSetting: If a parameter is unknown, missing or out of range.
    """
    return Recipe(tuple(_parse_step(step, f"{where}[{number}]") for number, step in enumerate(steps)))


def check_recipes(settings: Settings) -> None:
    """Check every target's recipe as it is written, before anything is read.

    Raises:
        UnknownName: If a harmonizer does not exist; lists those that do.
        BadSetting: If a parameter is unknown, missing or out of range.
    """
    for name, target in settings.target.items():
        parse_recipe(target.recipe, where=f"target.{name}.recipe")


def fit_recipe(
    recipe: Recipe,
    sample: Sequence[Volume],
    reference: FittedRecipe | None,
    *,
    as_reference: Collection[int] = (),
) -> FittedRecipe:
    """Learn each step on the sample as the steps before it leave it.

    Args:
        recipe: What to fit.
        sample: Still volumes of one site; read one at a time, once per step that learns.
        reference: The same recipe as fitted at the reference site; None to fit the reference itself.
        as_reference: Steps (0, 1, ...) that learn nothing here and do what they do at the reference.

    Raises:
        BadSetting: If the reference was fitted with other steps or settings.
    """
    if reference is not None and reference.recipe != recipe:
        problem = "is not the recipe that the reference was fitted with"
        raise BadSetting("sitedrift.toml", "recipe", problem, "restore it, or fit the source site again and train anew")
    fitted = FittedRecipe(())
    has_learned = False
    for number, step in enumerate(recipe.steps):
        at_reference = None if reference is None else reference.steps[number].learned
        if number in as_reference and at_reference is not None:
            learned = at_reference
        else:
            learns = step.harmonizer.fit is not nothing_to_learn
            prepared = _passing(sample, fitted) if learns and has_learned else _Prepared(sample, fitted)
            learned = step.harmonizer.fit(step.settings, prepared, at_reference)
            has_learned |= learns
        fitted = FittedRecipe((*fitted.steps, FittedStep(step, learned)))
    return fitted


def _passing(sample: Sequence[Volume], fitted: FittedRecipe) -> "_Prepared":
    """The sample without the volumes that a step so far refuses: what it learned decides, so nobody knew before."""
    kept = []
    for place in range(len(sample)):
        try:
            apply_recipe(fitted, sample[place])
        except UnreadableScan:
            continue
        kept.append(place)
    return _Prepared(_Chosen(sample, tuple(kept)), fitted)


def apply_recipe(fitted: FittedRecipe, volume: Volume, label: Volume | None = None) -> Applied:
    """Apply every step that can be applied to this volume, and move its label map along.

    Of a series in time the first volume is used. A step that needs spacing is skipped on a plain image,
    with `needs_spacing`.

    Args:
        fitted: The recipe.
        volume: The image, (z, y, x) or (t, z, y, x).
        label: A label map on the same grid (z, y, x): classes as whole numbers, or shares of a class in [0, 1].

    Raises:
        GeometryMismatch: If the label map lies on another grid than the image.
        UnreadableScan: If a step cannot give a volume, with its reason.
    """
    volume, skipped = volume.first(), []
    if label is not None and (label.size, label.geometry) != (volume.size, volume.geometry):
        raise GeometryMismatch("grid of a label map", (volume.size, volume.geometry), (label.size, label.geometry))
    for fitted_step in fitted.steps:
        harmonizer, settings = fitted_step.step.harmonizer, fitted_step.step.settings
        if harmonizer.needs_spacing and volume.geometry is None:
            skipped.append(f"{harmonizer.name}:needs_spacing")
            continue
        if label is not None and harmonizer.move_label is not None:
            label = harmonizer.move_label(label, settings, fitted_step.learned)
        volume = harmonizer.apply(volume, settings, fitted_step.learned)
    return Applied(volume, tuple(skipped), label)


def move_label(fitted: FittedRecipe, label: Volume) -> Volume:
    """A label map as `apply_recipe` moves it with its image, without the image: the grid alone says where it goes.

    Raises:
        UnreadableScan: If a step cannot give a volume, with its reason.
    """
    for fitted_step in fitted.steps:
        harmonizer = fitted_step.step.harmonizer
        if harmonizer.move_label is not None and not (harmonizer.needs_spacing and label.geometry is None):
            label = harmonizer.move_label(label, fitted_step.step.settings, fitted_step.learned)
    return label


def _refuse_other_version(harmonizer: Harmonizer, version: int) -> None:
    if version == harmonizer.version:
        return
    problem = f"was fitted with version {version} of {harmonizer.name}; this installation has {harmonizer.version}"
    remedy = "fit the source site again and train anew, or install the version that fitted it"
    raise BadSetting("core__recipe", harmonizer.name, problem, remedy)


def _parse_step(written: StepSettings, where: str) -> Step:
    harmonizer = HARMONIZERS[written.harmonizer]
    known = [field.name for field in fields(harmonizer.settings)]
    for name in written.params:
        if name not in known:
            problem = f"{harmonizer.name} has no parameter of this name"
            raise BadSetting("sitedrift.toml", f"{where}.{name}", problem, f"use one of: {', '.join(known) or 'none'}")
    try:
        settings = TypeAdapter(harmonizer.settings).validate_python(written.params)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join([where, *(str(part) for part in first["loc"])])
        remedy = f"{harmonizer.name} takes: {', '.join(known)}"
        raise BadSetting("sitedrift.toml", key, first["msg"], remedy) from error
    return Step(harmonizer, settings)
