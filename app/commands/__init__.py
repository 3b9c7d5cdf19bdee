"""Commands of `unetops`, one file per part of the work."""
