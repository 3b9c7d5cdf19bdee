"""Artifacts on disk and their database rows; independent of jobs and requests."""
