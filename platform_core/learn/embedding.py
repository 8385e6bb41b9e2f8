"""What a trained network says of scans: logits, and what goes into its head."""

import torch

from platform_core.learn.device import as_many_as_fit, gpu_or_cpu
from platform_core.learn.networks import Classifier
from platform_core.learn.segment import segment


def logits_and_embeddings(
    network: Classifier, x: torch.Tensor, *, batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n,) and embeddings (n, channels) in evaluation mode, on the CPU, float32.

    Raises:
        TooLittleMemory: If not even two scans fit the device.
    """
    device = gpu_or_cpu()
    network.to(device).eval()

    def embed(at_once: int) -> torch.Tensor:
        return torch.cat([network.embed(part.to(device)) for part in torch.split(x, at_once)])

    with torch.inference_mode():
        embedded = as_many_as_fit(embed, batch_size)
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
