"""The search strategies, each behind one ask/tell interface, and what they draw architectures with."""
