"""From a checkpoint to a bundle of ONNX graphs and TensorRT engines."""
