"""Converters from ONNX to the formats that other runtimes load."""
