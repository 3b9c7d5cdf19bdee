"""Errors, findings, documents, atomic files and thread pools; knows nothing about images."""
