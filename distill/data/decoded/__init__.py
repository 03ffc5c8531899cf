"""Decoded images of a data set: what is known of them, and how they are read from the disk."""
