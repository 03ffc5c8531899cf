"""The files that rows name, shared with colleagues who have the same leaderboard and another workspace."""
