"""The step that predicts images with a model; independent of ground truth and training."""
