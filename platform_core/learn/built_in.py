"""The source weights that come with the platform; made by `pretrain.py`, from no scan."""

from pathlib import Path

NETWORK = "resnet_tiny"
"""The one network that they are of."""
NOTHING = "nothing"
"""As `source_weights` asks to start from weights that are drawn from the seed."""
FOLDER = Path(__file__).parent / "weights"


def built_in_path(network: str, dimensions: int) -> Path:
    """Where the weights of a network lie, if there are any for it."""
    return FOLDER / f"{network}_{dimensions}d.safetensors"
