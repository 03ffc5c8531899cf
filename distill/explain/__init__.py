"""Explanations: class activation maps, figures about them, and their pictures."""
