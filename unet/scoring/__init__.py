"""Scoring of predictions against label masks; independent of training."""
