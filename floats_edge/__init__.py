"""floats-edge: train FLOATS networks, export them to ONNX and TensorRT, and profile them on the edge."""

__version__ = "0.1.0"
