"""The source weights that come with the platform; made by `pretrain.py`, from no scan."""

from pathlib import Path

BUILT_IN = "built_in"
"""As `source_weights` names them."""
NETWORK = "resnet_tiny"
"""The one network that they are of."""
FOLDER = Path(__file__).parent / "weights"


def built_in_path(network: str, dimensions: int) -> Path:
    """Where the weights of a network lie, if there are any for it."""
    return FOLDER / f"{network}_{dimensions}d.safetensors"
