"""The training step: single runs, folds and searches; independent of jobs and web."""
