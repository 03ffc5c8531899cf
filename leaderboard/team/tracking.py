"""Rows as runs of an MLflow tracking server: parameters, metrics with learning curves, tags, files (`push_runs`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.hub import first_line
from tutelage.leaderboard.columns import known
from tutelage.records import STATES, InputError, NotAvailableError, Row

from .shared_files import without_secrets

# Ids by which a row's run is found again.
ROW_ID = "tutelage.row_id"
_TAGS = ("user", "project", "retracted")
# One record an epoch of a training, as the run filed it.
History = Callable[[Row], Sequence[Mapping[str, Any]]]
Files = Callable[[Row], Mapping[str, Path]]
# What one request of a server takes, by MLflow's own bounds.
_MOST_METRICS, _MOST_PARAMS, _MOST_VALUE = 1000, 100, 500


@dataclass
class Logged:
    """What was logged: new runs, rows that have one, and rows that are not complete yet."""

    runs: list[str] = field(default_factory=list)
    there: int = 0
    unfinished: int = 0


def push_runs(rows: Sequence[Row], uri: str, experiment: str, *, history: History, files: Files) -> Logged:
    """Log each row as one finished run; one that has a finished run in the experiment is not logged again.

    history: the epochs of the training of a row, which become metrics with steps. files: what is logged as artifacts,
    by the names that they get. Rows of a run that goes on are left out. Raises InputError where the server refuses, and
    NotAvailableError without the extra `mlflow`.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # rows are nobody's business but the server's
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # by default five minutes for a server that is away
    try:
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise NotAvailableError(f"--mlflow needs MLflow ({error}): pip install 'tutelage[mlflow]'") from None

    done = Logged()
    with _plain_errors(uri):
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        place = client.create_experiment(experiment) if found is None else found.experiment_id
        there = set(_logged(client, place))
        for row in rows:
            if row.details.get("state") in STATES[:-1]:
                done.unfinished += 1
            elif row.key in there:
                done.there += 1
            else:
                done.runs.append(_log(client, place, row, history(row), files(row)))
    return done


def _logged(client: Any, experiment: str) -> Iterator[str]:
    """Yield the ids of the rows that have a finished run; one that was killed is logged anew."""
    token = None
    while True:
        part = client.search_runs([experiment], "attributes.status = 'FINISHED'", max_results=1000, page_token=token)
        yield from (run.data.tags[ROW_ID] for run in part if ROW_ID in run.data.tags)
        token = part.token
        if not token:
            return


def _log(client: Any, experiment: str, row: Row, epochs: Sequence[Mapping[str, Any]], files: Mapping[str, Path]) -> str:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    params, metrics = [], []
    for one in known():
        value = one.of(row) if one.name not in ("details", "on_front", *_TAGS) else None
        if value in (None, ""):
            continue
        if one.is_number and one.name not in ("seed", "fold", "batch", "threads", "image_size"):
            metrics.append(Metric(one.name, float(value), now, 0))
        else:
            params.append(Param(one.name, str(value)[:_MOST_VALUE]))
    for step, record in enumerate(epochs):
        for name, value in record.items():
            if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool):
                metrics.append(Metric(f"training.{name}", float(value), now, int(record.get("epoch", step))))
    said = {name: str(row.details[name]) for name in _TAGS if row.details.get(name)}
    made = row.details.get("how") or {}
    said |= {ROW_ID: row.key, "tutelage.command": str(made.get("command", "")), "mlflow.source.name": "tutelage"}
    run = client.create_run(experiment, run_name=row.model, tags=said).info.run_id
    for start in range(0, max(len(params), 1), _MOST_PARAMS):
        client.log_batch(run, params=params[start : start + _MOST_PARAMS])
    for start in range(0, max(len(metrics), 1), _MOST_METRICS):
        client.log_batch(run, metrics=metrics[start : start + _MOST_METRICS])
    for name, file in files.items():
        client.log_artifact(run, str(file), str(Path(name).parent) if Path(name).parent != Path() else None)
    client.set_terminated(run)
    return str(run)


@contextmanager
def _plain_errors(uri: str) -> Iterator[None]:
    """Turn what the client and its libraries raise into one line without the password of an address."""
    try:
        yield
    except (InputError, NotAvailableError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in ("mlflow", "sqlalchemy"):
            raise
        scheme, _, rest = uri.partition("://")
        shown = f"{scheme}://{rest.rpartition('@')[2]}"
        why = without_secrets(first_line(error)).replace(uri, shown)
        raise InputError(f"--mlflow {shown}: {why}") from None
