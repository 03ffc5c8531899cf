"""What a verb runs outside of a whole run, one file each."""
