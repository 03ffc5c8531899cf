"""How tables of older versions become today's: Alembic's environment and one revision a version of the schema."""
