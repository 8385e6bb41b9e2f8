"""Weights that others have made, put into a network of ours, if enough of its layers match.

The head is never taken: its classes are another task's. The first convolution is brought to one channel, a 2-D
network's weights to 3-D, so that a grey image, repeated along the slices, gives the same responses.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from platform_core.errors import UnusableWeights
from platform_core.learn.checkpoints import Checkpoint
from platform_core.learn.networks import NETWORKS, Classifier, build_network, public_names

Tensors = Mapping[str, torch.Tensor]

LEAST_SHARE = 0.9
"""Of the layers that the network and the file have together. A depth more or less, or shortcuts of another kind, are
below it; batch counters, heads and decoders do not count."""
COUNTER = ".num_batches_tracked"
N_TOLD = 3
SPELLINGS = (
    (re.compile(r"(denselayer\d+)\.(norm|conv)\.?(\d)"), r"\1.layers.\2\3"),  # torchvision's and timm's DenseNet
    (re.compile(r"(norm|conv)\.(\d)\."), r"\1\2."),  # torchvision before 0.4
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How a file's layers fit a network, head aside; layers by the names of MONAI's network, in depth order."""

    network: str
    taken: tuple[str, ...]
    adapted: tuple[str, ...]
    """Those of `taken` that were brought to one channel or to 3-D."""
    absent: tuple[str, ...]
    """In the network, not in the file."""
    unlike: tuple[str, ...]
    """In both, of other sizes, or with tensors that the network has no place for."""
    unused: tuple[str, ...]
    """In the file, within parts that the network has too, but not in the network."""

    @property
    def share(self) -> float:
        """Of all layers of either, those that match, in [0, 1]."""
        n_all = sum(map(len, (self.taken, self.absent, self.unlike, self.unused)))
        return len(self.taken) / n_all if n_all else 0.0

    @property
    def summary(self) -> str:
        """One line for a person."""
        n_network = len(self.taken) + len(self.absent) + len(self.unlike)
        told = f"{len(self.taken)} of {n_network} layers of {self.network} match"
        parts = (
            ("not in the file", self.absent),
            ("of another size", self.unlike),
            ("only in the file", self.unused),
        )
        return "; ".join([told, *(f"{words}: {_told(layers)}" for words, layers in parts if layers)])


def compare(checkpoint: Checkpoint, network: str, dimensions: int) -> Match:
    """Say which layers of a network a file could fill; nothing is changed.

    Raises:
        UnknownName: If there is no such network.
    """
    names = public_names(network, dimensions)
    with torch.device("meta"):
        wanted = build_network(network, dimensions).state_dict()
    body = {public: wanted[ours] for public, ours in names.items() if _is_matched(ours)}
    return _compared(network, _spelt_as(names, checkpoint.tensors), body)


def transplant(checkpoint: Checkpoint, classifier: Classifier, network: str, dimensions: int) -> Match:
    """Put a file's weights into a classifier that was built as `network`; its head keeps what it has.

    Returns:
        Which layers came from the file; the few that did not keep what they had.

    Raises:
        UnusableWeights: If less than `LEAST_SHARE` of the layers match, or a weight is not a finite number; then the
            classifier is as it was.
    """
    match = compare(checkpoint, network, dimensions)
    if match.share < LEAST_SHARE:
        detail = f"{match.summary}; {_advice(checkpoint, match, dimensions)}"
        raise UnusableWeights(checkpoint.where, "other_architecture", detail)
    names = public_names(network, dimensions)
    found = _spelt_as(names, checkpoint.tensors)
    ours = classifier.state_dict()
    taken = set(match.taken)
    new: dict[str, torch.Tensor] = {}
    for public, key in names.items():
        if _layer(public) in taken and public in found:
            brought = _brought_to(found[public], ours[key])
            new |= {} if brought is None else {key: brought.to(ours[key].dtype)}
    _refuse_not_finite(checkpoint.where, new)
    classifier.load_state_dict(ours | new)
    return match


def _compared(network: str, found: Tensors, body: Tensors) -> Match:
    fits = {name: name in found and _brought_to(found[name], tensor) is not None for name, tensor in body.items()}
    layers = list(dict.fromkeys(map(_layer, body)))
    of_layer = {layer: [name for name in body if _layer(name) == layer] for layer in layers}
    stranger = {_layer(name) for name in found if name not in body and not name.endswith(COUNTER)}
    taken = tuple(layer for layer in layers if layer not in stranger and all(fits[name] for name in of_layer[layer]))
    absent = tuple(layer for layer in layers if any(name not in found for name in of_layer[layer]))
    return Match(
        network=network,
        taken=taken,
        adapted=tuple(layer for layer in taken if any(found[n].shape != body[n].shape for n in of_layer[layer])),
        absent=absent,
        unlike=tuple(layer for layer in layers if layer not in {*taken, *absent}),
        unused=tuple(_others(found, layers)),
    )


def _others(found: Tensors, layers: list[str]) -> list[str]:
    """Layers of the file that the network lacks, within parts that it has."""
    parts = {layer.partition(".")[0] for layer in layers}
    names = dict.fromkeys(map(_layer, found))
    return [layer for layer in names if layer not in layers and layer.partition(".")[0] in parts]


def _brought_to(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor | None:
    """A tensor of the file in the size that is wanted; None if that cannot be.

    Source:
        Carreira & Zisserman 2017, CVPR, doi:10.1109/CVPR.2017.502, section 2.3: 2-D filters repeated along the third
        axis and divided by their number.
    """
    if found.ndim >= 4 and wanted.shape[1] == 1 and found.shape[1] > 1:
        found = found.sum(dim=1, keepdim=True)
    if found.ndim == 4 and wanted.ndim == 5:
        depth = wanted.shape[2]
        found = found.unsqueeze(2).expand(-1, -1, depth, -1, -1) / depth
    return found if found.shape == wanted.shape else None


def _spelt_as(names: Mapping[str, str], tensors: Tensors) -> dict[str, torch.Tensor]:
    """The file's tensors by the names of MONAI's network, biases before a norm drawn into it."""
    public = {ours: name for name, ours in names.items()}
    spelt = {public.get(key) or _public(key, names): tensor for key, tensor in tensors.items()}
    return _without_shortcut_biases(spelt, names)


def _public(key: str, names: Mapping[str, str]) -> str:
    for pattern, spelling in SPELLINGS:
        if key in names:
            break
        key = pattern.sub(spelling, key)
    return key


def _without_shortcut_biases(found: dict[str, torch.Tensor], names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """MONAI's ResNet has by default a bias before the norm of a shortcut; the norm's mean takes it up exactly."""
    for key in [key for key in found if key.endswith("downsample.0.bias") and key not in names]:
        mean = key.removesuffix("0.bias") + "1.running_mean"
        bias = found.pop(key)
        if mean in found and found[mean].shape == bias.shape:
            found[mean] = found[mean] - bias
    return found


def _is_matched(ours: str) -> bool:
    return not ours.startswith("blocks.head.") and not ours.endswith(COUNTER)


def _layer(tensor_name: str) -> str:
    return tensor_name.rpartition(".")[0]


def _refuse_not_finite(where: str, tensors: Tensors) -> None:
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UnusableWeights(where, "not_finite", f"a weight of {key} is NaN or infinite; fetch the file again")


def _advice(checkpoint: Checkpoint, match: Match, dimensions: int) -> str:
    """What would fit, if any network does."""
    fits = [name for name in NETWORKS if compare(checkpoint, name, dimensions).share >= LEAST_SHARE]
    needed = f"{LEAST_SHARE:.0%} of all layers of both are needed, {match.share:.0%} match"
    return f"{needed}; " + (
        f"set network = {fits[0]!r}" if fits else "choose weights of this network, or leave them out"
    )


def _told(layers: Iterable[str]) -> str:
    first = list(layers)
    return ", ".join(first[:N_TOLD]) + (f" and {len(first) - N_TOLD} more" if len(first) > N_TOLD else "")
