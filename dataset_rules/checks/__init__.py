"""Defects of a source and of its pairs, reported as findings; repairs nothing."""
