"""The leaderboard as one HTML file, and the server that refreshes it."""
