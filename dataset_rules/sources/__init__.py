"""Folders, archives, downloads and buckets as lists of files; knows no masks or pairs."""
