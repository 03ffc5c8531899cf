"""Int8 quantization after training and during it, one file a scheme."""
