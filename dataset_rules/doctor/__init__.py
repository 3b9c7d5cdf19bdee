"""Examine a source and report on it; writes no dataset."""
