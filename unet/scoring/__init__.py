"""Predictions scored against label masks; knows nothing about training."""
