"""Predictions over HTTP while the client waits; independent of routes and pages."""
