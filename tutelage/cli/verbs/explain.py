"""`tutelage explain`: draw and measure where networks look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import (
    DEFAULT_WORKSPACE,
    AcceleratorOption,
    JsonOption,
    LastRecipeOption,
    SetOption,
    WorkspaceOption,
    folder_option,
    last_recipe,
)
from tutelage.cli.output_files import check_folder


def explain(
    method: Annotated[str, typer.Option(help="scorecam, gradcam, hirescam or eigencam.")] = "gradcam",
    images: Annotated[int, typer.Option(min=1, help="Validation images to explain.")] = 8,
    out: Annotated[Path, folder_option(help="Folder of the pictures.")] = Path("explanations"),
    accelerator: AcceleratorOption = None,
    recipe: LastRecipeOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Draw saliency maps of teachers and students side by side, and measure their faithfulness and agreement.

    Example: [bold]tutelage explain --recipe demo --method scorecam --images 4[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.cli.planned import print_plan
    from tutelage.pipeline.operations.explain import explain_recipe
    from tutelage.pipeline.preflight import read_recipe

    chosen = read_recipe(last_recipe(recipe, workspace), set_ or (), workspace, "distill", {"accelerator": accelerator})
    check_folder(out, "--out")
    with terminal.run_setting(workspace) as setting:
        figures = explain_recipe(chosen, *setting, method=method, num_images=images, out=out, announce=print_plan)
    terminal.print_explanations(figures, out, Console(markup=False), as_json)
