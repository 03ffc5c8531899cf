"""A run from recipe to leaderboard: the stages, the workspace, and the single operations of the verbs."""
