"""A dataset's fingerprint and the plan computed from it; never imports torch."""
