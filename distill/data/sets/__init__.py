"""The families of data sets, one file each, as people have them on disk."""
