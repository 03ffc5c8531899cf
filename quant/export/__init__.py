"""Export of a network to ONNX and to PyTorch programs."""
