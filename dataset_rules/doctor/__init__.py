"""The examination of a source and its report; writes no dataset."""
