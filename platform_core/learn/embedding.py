"""What a trained network says of scans: logits, and what goes into its head."""

import torch

from platform_core.learn.device import fewer, is_out_of_memory
from platform_core.learn.networks import Classifier
from platform_core.learn.segment import segment


def logits_and_embeddings(
    network: Classifier, x: torch.Tensor, *, batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n,) and embeddings (n, channels) in evaluation mode, on the CPU, float32.

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).eval()
    embedded = None
    while embedded is None:
        embedded = _embedded(network, x, batch_size, device)
        batch_size = fewer(batch_size) if embedded is None else batch_size
    with torch.inference_mode():
        logits = network.head(embedded).squeeze(1)
    network.cpu()
    return logits.cpu(), embedded.cpu()


def answers(network: Classifier, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One logit (n,) and one embedding (n, channels) per scan, whether the network marks scans or voxels.

    Of a segmentation: the log-odds of the share of the scan that it marks, and its coarsest features.

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    if not network.marks_voxels:
        return logits_and_embeddings(network, x)
    seen = segment(network, x)
    return seen.logits, seen.embeddings


def _embedded(network: Classifier, x: torch.Tensor, batch_size: int, device: torch.device) -> torch.Tensor | None:
    """None if so many scans at once do not fit the device."""
    try:
        with torch.inference_mode():
            return torch.cat([network.embed(part.to(device)) for part in torch.split(x, batch_size)])
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()
    return None
