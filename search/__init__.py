"""Search: spaces, counts, supernets and the strategies that look for an architecture under a budget."""
