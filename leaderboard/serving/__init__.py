"""The page on a network: a read-only server with tokens and limits."""
