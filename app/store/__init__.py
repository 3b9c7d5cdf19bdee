"""Artifacts on disk and their database rows; knows no jobs and no requests."""
