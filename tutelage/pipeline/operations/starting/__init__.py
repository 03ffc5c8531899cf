"""A first recipe for a user's own images: what `tutelage init` finds, chooses, measures and writes."""
