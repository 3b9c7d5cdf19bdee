"""Infer from names and content which files belong together; writes nothing."""
