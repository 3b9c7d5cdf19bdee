"""Tokens, sessions and roles; knows no artifacts and no jobs."""
