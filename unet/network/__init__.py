"""The network, its losses, checkpoints and inference; independent of datasets and training."""
