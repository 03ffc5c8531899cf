"""What a verb does for microcontrollers."""
