"""The step that exports a model to ONNX with a runner; independent of training."""
