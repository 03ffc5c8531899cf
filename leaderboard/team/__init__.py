"""What several people need of one leaderboard."""
