"""Networks, the one training loop, strategies as data, prediction and the registry of models."""
