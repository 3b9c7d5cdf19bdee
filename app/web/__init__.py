"""The web process: routes, pages and request bodies; never imports torch."""
