"""The leaderboard as text: the table, one row, two rows side by side."""
