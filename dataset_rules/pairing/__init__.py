"""Which files belong together, inferred from names and content; writes nothing."""
