"""Pixel files read and written, in every format; knows no rules, pairs or datasets."""
