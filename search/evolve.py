"""The stable import path of the search loop."""

from .loop import Evaluated, Objective, SearchResult, search

__all__ = ["Evaluated", "Objective", "SearchResult", "search"]
