"""The step that trains: single runs, folds and searches; knows no jobs and no web."""
