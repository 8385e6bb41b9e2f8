"""Everything this platform raises on purpose.

    PlatformError                    never raised itself; catch it at the edges
      BadInput                       the data are wrong; a person must look
        UnreadableScan               a file cannot be decoded
        GeometryMismatch             a grid is not what it should be
        EmptySample                  a statistic has nothing to work on
        SchemaMismatch               a table or file lacks columns
        LedgerOpen                   a run's counts do not close
        HarmfulRecipe                a fixed step does harm at a site
        NotAdaptable                 a network that unlabelled scans cannot be trusted to move
        IdentityLeak                 a planted identity survived the door
        BadSketchFile                sketches from another place cannot be taken in
      BadRequest                     the call or the configuration is wrong; the caller must change it
        UnknownName (KeyError)       a plug-in, site or model that does not exist
        DuplicateName                two plug-ins share a name
        BadSetting                   a settings file cannot be used
        NotAWorkspace                no workspace at this address
        WrongKey                     the pseudonym key is missing or is another workspace's
        NoSuchPlace                  a folder or file that does not exist
        StorageRefused               a store that forbids the call or cannot do it
        UnusableWeights              a checkpoint that is unsafe, damaged or of another architecture
        TooLittleMemory              a network that does not fit the device with even two scans
      Unavailable                    the world is down; try again                     retryable
        StorageUnavailable           a table or object store did not answer
        SiteUnavailable              a site's source did not answer
        DeviceLost                   a GPU failed in the middle of the work
        TrainingUnderWay             another training of the same target has not ended
      TargetsStopped                 some targets of a site were stopped, by any of the above

Each class keeps its facts as attributes, so a caller never parses a message.
Messages name sites and pseudonymous keys, never a patient.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime


class PlatformError(Exception):
    """Root of everything raised on purpose."""

    retryable = False


class BadInput(PlatformError):
    """The data are wrong; a person must look."""


class BadRequest(PlatformError):
    """The call or the configuration is wrong; the caller must change it."""


class Unavailable(PlatformError):
    """The world is down; the same call may succeed later."""

    retryable = True


class UnreadableScan(BadInput):
    """A file or series cannot be turned into a volume.

    `reason` is a short stable code for the ledger; `detail` is for the person on call.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason, detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class GeometryMismatch(BadInput):
    """A grid is not the one that was expected."""

    def __init__(self, what: str, expected: object, found: object) -> None:
        self.what, self.expected, self.found = what, expected, found
        super().__init__(what, expected, found)

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, found {self.found}"


class EmptySample(BadInput):
    """A statistic was asked of no rows."""

    def __init__(self, what: str, n_needed: int = 1, n_found: int = 0) -> None:
        self.what, self.n_needed, self.n_found = what, n_needed, n_found
        super().__init__(what, n_needed, n_found)

    def __str__(self) -> str:
        return f"{self.what}: needs at least {self.n_needed}, found {self.n_found}"


class SchemaMismatch(BadInput):
    """A table or file lacks what it must have; all of it is named at once."""

    def __init__(self, where: str, missing: Iterable[str], found: Iterable[str]) -> None:
        self.where, self.missing, self.found = where, tuple(missing), tuple(found)
        super().__init__(where, self.missing, self.found)

    def __str__(self) -> str:
        return f"{self.where}: missing {', '.join(self.missing)}; found {', '.join(self.found) or 'nothing'}"


class LedgerOpen(BadInput):
    """A run's arrivals do not add up: something was lost on the way."""

    def __init__(self, site: str, stage: str, n_in: int, n_out: int) -> None:
        self.site, self.stage, self.n_in, self.n_out = site, stage, n_in, n_out
        super().__init__(site, stage, n_in, n_out)

    def __str__(self) -> str:
        return (
            f"{self.site}: the ledger of {self.stage!r} does not close: {self.n_in} came in, "
            f"{self.n_out} are accounted for; run again, and report this if it stays"
        )


class HarmfulRecipe(BadInput):
    """A fixed step of a target's recipe does harm at a site, and nothing else is allowed to be served there."""

    def __init__(self, site: str, target: str, because: str) -> None:
        self.site, self.target, self.because = site, target, because
        super().__init__(site, target, because)

    def __str__(self) -> str:
        return (
            f"{self.site} is not served for {self.target}: {self.because}; look at `sitedrift passport {self.site}`, "
            "change the recipe and train anew, or set refuse_harmful_steps = false for this target"
        )


class NotAdaptable(BadInput):
    """An adaptation without labels cannot be made of this network and these scans; the network stays as it is."""

    def __init__(self, adaptation: str, because: str) -> None:
        self.adaptation, self.because = adaptation, because
        super().__init__(adaptation, because)

    def __str__(self) -> str:
        return f"{self.adaptation} is refused: {self.because}"


class IdentityLeak(BadInput):
    """Synthetic identities survived the door; `kinds` says where they were planted, never what they were."""

    def __init__(self, site: str, kinds: Iterable[str]) -> None:
        self.site, self.kinds = site, tuple(kinds)
        super().__init__(site, self.kinds)

    def __str__(self) -> str:
        return (
            f"{self.site}: planted identities survived the door ({', '.join(self.kinds)}); "
            "nothing downstream starts; report this with these kinds, and take nothing more in until it is mended"
        )


class BadSketchFile(BadInput):
    """A file of sketches or of a reference was damaged, changed, or made for another workspace.

    `reason` is a short stable code; `detail` is for the person on call.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason, detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}; nothing was taken in: ask the sender for a new export"


class UnknownName(BadRequest, KeyError):
    """A name that nothing answers to; the message says what exists."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(kind, name, self.known)

    def __str__(self) -> str:
        return f"no {self.kind} named {self.name!r}; known: {', '.join(self.known) or 'none'}"


class DuplicateName(BadRequest):
    """Two plug-ins of one kind share a name."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(kind, name)

    def __str__(self) -> str:
        return f"two plug-ins of kind {self.kind} are named {self.name!r}; rename one"


class BadSetting(BadRequest):
    """A settings file cannot be used: which file, which key, what to do."""

    def __init__(self, path: str, key: str, problem: str, remedy: str) -> None:
        self.path, self.key, self.problem, self.remedy = path, key, problem, remedy
        super().__init__(path, key, problem, remedy)

    def __str__(self) -> str:
        at = f" [{self.key}]" if self.key else ""
        return f"{self.path}{at}: {self.problem}; {self.remedy}"


class NotAWorkspace(BadRequest):
    """There is no workspace at this address."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        super().__init__(uri)

    def __str__(self) -> str:
        return f"{self.uri} holds no sitedrift.toml; go to a workspace, or make one with `sitedrift init {self.uri}`"


class WrongKey(BadRequest):
    """The pseudonym key is missing or belongs to another workspace."""

    def __init__(self, where: str, problem: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(where, problem)

    def __str__(self) -> str:
        return (
            f"pseudonym key {self.where}: {self.problem}; restore the key file, or set SITEDRIFT_KEY to the key that "
            "this workspace was made with (another key would give every patient a second identity)"
        )


class NoSuchPlace(BadRequest):
    """A folder or file that was named does not exist or cannot be used."""

    def __init__(self, path: str, expected: str, remedy: str) -> None:
        self.path, self.expected, self.remedy = path, expected, remedy
        super().__init__(path, expected, remedy)

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}; {self.remedy}"


class StorageRefused(BadRequest):
    """A table or object store answered no: without rights, without the bucket, or unfit for a workspace."""

    def __init__(self, uri: str, reason: str, remedy: str) -> None:
        self.uri, self.reason, self.remedy = uri, reason, remedy
        super().__init__(uri, reason, remedy)

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}; {self.remedy}"


class UnusableWeights(BadRequest):
    """A file of weights cannot be started from.

    `reason` is a short stable code (missing, unsafe, damaged, too_large, changed, other_architecture, not_finite);
    `detail` says what was found and what to do.
    """

    def __init__(self, where: str, reason: str, detail: str) -> None:
        self.where, self.reason, self.detail = where, reason, detail
        super().__init__(where, reason, detail)

    def __str__(self) -> str:
        return f"source_weights {self.where}: {self.detail}"


class TooLittleMemory(BadRequest):
    """A network does not fit the device, however few scans it is shown at once."""

    def __init__(self, n_at_once: int) -> None:
        self.n_at_once = n_at_once
        super().__init__(n_at_once)

    def __str__(self) -> str:
        return (
            f"the device has too little memory for {self.n_at_once} scans at once; "
            "choose a smaller grid or network for this target"
        )


class StorageUnavailable(Unavailable):
    """A table or object store did not answer."""

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(uri, reason)

    def __str__(self) -> str:
        return f"cannot reach {self.uri}: {self.reason}"


class SiteUnavailable(Unavailable):
    """A site's source did not answer; `what` never holds an address of a scan."""

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(what, reason)

    def __str__(self) -> str:
        return f"{self.what} did not answer: {self.reason}; run again"


class DeviceLost(Unavailable):
    """A GPU failed in the middle of the work; what was kept of a training is gone on with."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"the GPU failed ({self.reason}); run again to go on from the last checkpoint"


class TrainingUnderWay(Unavailable):
    """A target is trained once at a time; `what` trains it, since when, and what to do."""

    def __init__(self, target: str, what: str, since: datetime, remedy: str) -> None:
        self.target, self.what, self.since, self.remedy = target, what, since, remedy
        super().__init__(target, what, since, remedy)

    def __str__(self) -> str:
        return (
            f"{self.target} is being trained: {self.what}, since {self.since:%Y-%m-%d %H:%M} UTC; wait for its end; "
            f"{self.remedy}"
        )


class TargetsStopped(PlatformError):
    """Some targets of a site were stopped, the others went on; says what stopped which."""

    def __init__(self, errors: Mapping[str, PlatformError]) -> None:
        self.targets = tuple(errors)
        self.reasons = tuple(map(str, errors.values()))
        super().__init__(errors)

    def __str__(self) -> str:
        told = zip(self.targets, self.reasons, strict=True)
        return "; ".join(f"{target}: {reason}" for target, reason in told)
