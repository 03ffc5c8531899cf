"""The ways to make a network int8 after training, as `quantize.method` names them, and their registry."""
