"""Folders, archives, downloads and buckets as lists of files; independent of masks and pairs."""
