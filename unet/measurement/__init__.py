"""Stains, shapes, IHC scores and their report; independent of the network."""
