"""Predictions while a client waits; knows no routes and no pages."""
