"""Errors, findings, documents, atomic writes and thread pools; independent of images."""
