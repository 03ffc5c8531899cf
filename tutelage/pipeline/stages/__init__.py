"""The stages of a run, one file each: they take records and files, call the rooms, and leave records and files."""
