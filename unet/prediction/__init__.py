"""The step that predicts images with a model; knows no ground truth and no training."""
