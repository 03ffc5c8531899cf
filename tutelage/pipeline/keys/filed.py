"""What a stage files beside its files, as typed records: `FiledInputs` (inputs.json) and `FiledResult` (done.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tutelage.records import InputError


class Filed(BaseModel):
    """A JSON file of a stage's folder; keys of other versions of tutelage are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    FILE: ClassVar[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a stage's folder; raise InputError for one that is missing or damaged."""
        path = folder / cls.FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
        except OSError as error:
            reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be read ({reason}): delete its folder and the stage is done again")

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Read the file of a stage's folder; None for one that is missing or damaged."""
        try:
            return cls.read(folder)
        except InputError:
            return None


class FiledInputs(Filed):
    """What a stage is computed from. Stages of earlier versions have no title and no recipe."""

    FILE: ClassVar[str] = "inputs.json"

    stage: str
    title: str = ""
    inputs: dict[str, Any]
    recipe: dict[str, Any] | None = None

    @property
    def versions(self) -> dict[str, str]:
        """Give the versions of the libraries that compute it; none where they are not among the inputs."""
        found = self.inputs.get("versions")
        return found if isinstance(found, dict) else {}


class FiledResult(Filed):
    """The result of a finished stage. `made_by`: versions of tutelage and Python; empty where they are not known."""

    FILE: ClassVar[str] = "done.json"

    stage: str
    finished: str
    result: dict[str, Any]
    made_by: dict[str, str] = {}
