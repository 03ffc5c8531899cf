"""`tutelage search`: search the supernet under budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import (
    DEFAULT_WORKSPACE,
    AcceleratorOption,
    ClusterOption,
    JsonOption,
    Place,
    RecipeOption,
    SetOption,
    ShareOption,
    WorkersOption,
    WorkspaceOption,
)


def search(
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Device profile to hold budgets on; repeatable.")
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(help="Latency budget on those devices, e.g. 5ms; several (1ms,2ms,4ms): a winner for each."),
    ] = None,
    winners: Annotated[
        int | None, typer.Option(help="Winners, spread over the latencies within the budgets; 1: the most accurate.")
    ] = None,
    risk: Annotated[
        float | None, typer.Option(help="Probability that a subnet breaks its latency budget: 0.05 holds it to 95 %.")
    ] = None,
    max_macs: Annotated[str | None, typer.Option(help="Multiply-accumulates, e.g. 100M.")] = None,
    max_params: Annotated[str | None, typer.Option(help="Parameters, e.g. 3M.")] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", "--max-flash", help="Bytes of the file that is deployed, e.g. 8MB.")
    ] = None,
    max_ram: Annotated[str | None, typer.Option(help="RAM on a microcontroller, TFLite Micro's arena: 512KB.")] = None,
    max_energy: Annotated[str | None, typer.Option(help="Energy of an inference as measured, e.g. 3mJ.")] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Space of architectures, those with _stem1 for small images. One of: {spaces}.",
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set: {datasets}; see `tutelage data list`.")] = None,
    path: Annotated[Path | None, typer.Option(help="Folder or file of the data set.")] = None,
    evals: Annotated[int | None, typer.Option(help="Subnets to score.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Search strategy. One of: {strategies:help}.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")] = None,
    supernet_weights: Annotated[
        str | None, typer.Option(help="Supernet weights to start from: imagenet, ofa:NAME, or a file.")
    ] = None,
    accelerator: AcceleratorOption = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    share: ShareOption = None,
    recipe: RecipeOption = "demo",
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Find the best subnets within a budget, one or a family of them; finalists are measured again on the device.

    Example: [bold]tutelage search --device host-ort --max-latency 1.5ms --max-params 3M --evals 100[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.cli.planned import announcing, keys_given
    from tutelage.pipeline import run as pipeline
    from tutelage.pipeline.following import follow, leading
    from tutelage.pipeline.operations import single_stage
    from tutelage.pipeline.preflight import read_recipe

    place = Place(workers, cluster, share)
    options: dict[str, object] = {
        **{"search.max_macs": max_macs, "search.max_params": max_params, "search.max_size": max_size},
        **{"search.max_ram": max_ram, "search.max_energy": max_energy},
        **{"search.evaluations": evals, "search.strategy": strategy, "seed": seed, "accelerator": accelerator},
        **{"supernet.space": space, "supernet.weights": supernet_weights, "data.dataset": dataset, "data.path": path},
    }
    base = read_recipe(recipe, set_ or (), workspace, "search", options)
    target, timed = single_stage.target_among(device or (), workspace)
    base = single_stage.on_target(base, target, timed, max_latency, risk)
    devices = single_stage.named_devices(base, timed, max_latency, workspace, risk)
    chosen = single_stage.with_budgets(base, devices, max_latency, winners)
    terminal.note_budget(max_latency, risk, None if device else devices)
    if follow(chosen, workspace, terminal.cores()):
        return
    with (
        terminal.run_setting(workspace) as setting,
        leading(chosen),
        terminal.workers_setting(chosen, setting, place) as (spread, failed),
    ):
        searched = pipeline.search(chosen, *spread, announce=announcing(chosen, workspace, keys_given(set_, options)))
    if as_json:
        print(json.dumps({**searched.found.result.to_dict(), "verified": searched.found.to_dict()}))
    else:
        terminal.print_search(searched, Console(markup=False))
    terminal.exit_for_failed(failed)
