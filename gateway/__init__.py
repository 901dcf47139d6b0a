"""Serve ONNX image classifiers over NVIDIA Triton."""

__version__ = "0.2.0"
