"""The revisions, oldest first; `migrating.prepare` says which of them a store needs."""
