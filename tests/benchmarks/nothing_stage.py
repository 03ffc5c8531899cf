"""A stage that computes nothing, for what a task costs besides: workers import this module by its name."""

from pathlib import Path
from typing import Any, ClassVar

from tutelage.pipeline.context import Resources
from tutelage.pipeline.keys.stage_inputs import StageInputs


class NothingInputs(StageInputs):
    """The stage of a number."""

    STAGE: ClassVar[str] = "nothing"

    number: int


def nothing(inputs: NothingInputs, here: Resources, folder: Path) -> dict[str, Any]:
    """Write a small file, as every stage writes one."""
    (folder / "file").write_text(str(inputs.number))
    return {"number": inputs.number}
