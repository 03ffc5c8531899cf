"""The search strategies, one file each, and what they share: draws, genetic operators and the registry."""
