"""Tokens, sessions and roles; independent of artifacts and jobs."""
