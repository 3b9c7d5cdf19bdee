"""The step that exports a model to ONNX with a runner; knows nothing about training."""
