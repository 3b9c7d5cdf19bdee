"""What mask values mean, and masks decoded to label masks; knows nothing about pairing."""
