"""Meaning of mask values, and decoding of masks to label masks; independent of pairing."""
