"""The stages of a run, one file each: they read and write records and files, and call the other packages."""
