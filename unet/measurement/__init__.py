"""Stains, shapes, IHC scores and their report; knows nothing about the network."""
