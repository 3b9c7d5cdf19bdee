"""One training of one network on one split; knows no folds, searches or artifacts."""
