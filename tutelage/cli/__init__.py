"""The command line. `main` runs it; the verbs are in `verbs`, one file each; no logic lives here."""

from .app import main

__all__ = ["main"]
