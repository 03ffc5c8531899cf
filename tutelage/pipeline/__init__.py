"""A run from recipe to leaderboard: the stages, the workspace, and the operations that verbs run alone."""
