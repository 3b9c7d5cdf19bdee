"""Training of one network on one split; independent of folds, searches and artifacts."""
