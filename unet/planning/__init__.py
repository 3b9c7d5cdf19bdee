"""A dataset's fingerprint and the plan made from it by arithmetic; never imports torch."""
