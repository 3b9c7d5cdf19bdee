"""The step that writes a formatted dataset; knows no other tool's layout."""
