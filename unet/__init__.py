"""From a formatted dataset to a trained U-Net, masks and measurements."""
