"""The verbs of the command line that have verbs of their own, one file a group."""
