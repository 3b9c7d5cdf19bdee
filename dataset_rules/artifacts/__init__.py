"""Manifests, seals, provenance and lineage of finished folders; runs no steps."""
