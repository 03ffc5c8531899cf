"""Leaderboard: the store of rows, Pareto fronts, plots and the page."""
