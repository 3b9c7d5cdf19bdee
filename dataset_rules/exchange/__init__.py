"""Datasets in other tools' layouts, in and out; knows no network and no service."""
