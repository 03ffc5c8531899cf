"""Alembic's environment: run the revisions on the connection, and in the transaction, that `migrating` holds."""

from alembic import context

from tutelage.leaderboard.store.schema import metadata

if __name__ == "env_py":  # the name that Alembic runs this file under; imported otherwise it does nothing
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        on_version_apply=context.config.attributes["applied"],
    )
    context.run_migrations()
