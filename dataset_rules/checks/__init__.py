"""Detect defects of a source and its pairs and report them as findings; repairs nothing."""
