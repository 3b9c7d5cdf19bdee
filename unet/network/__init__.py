"""The network, its losses, checkpoints and inference; knows no dataset and no training."""
