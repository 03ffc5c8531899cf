"""`Comparison`: result of a paired test of two files, or of training with and without a teacher, as one verdict."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, computed_field, model_validator

from .record import Record

Verdict = Literal["gained", "lost", "equivalent", "inconclusive"]

# A claim about a teacher is one about trainings to come: a standard deviation over fewer seeds is too uncertain.
MIN_SEEDS = 5
# Within this difference of AUC or accuracy two files are as good as each other, unless a recipe says otherwise.
DEFAULT_MARGIN = 0.01


def verdict_of(
    difference: float | None, low: float | None, high: float | None, p: float | None, margin: float
) -> Verdict:
    """Decide at the 5 % level; equivalence comes first, since a difference within the margin does not matter.

    Equivalent is a 95 % interval wholly within the margin: two one-sided tests at 2.5 % (Schuirmann 1987).
    """
    if difference is None or low is None or high is None or p is None:
        return "inconclusive"
    if -margin <= low and high <= margin:
        return "equivalent"
    if p >= 0.05:
        return "inconclusive"
    return "gained" if difference > 0 else "lost"


class Comparison(Record):
    """A paired comparison on the same test images, first minus second, of one of two claims.

    `file`: these files differ (images' groups are random); `teacher`: training with it helps (groups and seeds are).
    `low` and `high` bound the unadjusted 95 % interval; `p` is Holm-adjusted over `num_comparisons`.
    `None` is undefined.
    """

    claim: Literal["file", "teacher"]
    figure: Literal["auc", "accuracy"]
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    margin: float = Field(gt=0)
    num_seeds: int = Field(ge=1)
    num_groups: int = Field(ge=1)
    num_comparisons: int = Field(1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _without_verdict(cls, data: Any) -> Any:
        """Read back what `to_dict` wrote: the verdict follows from the figures and is not taken on trust."""
        return {key: value for key, value in data.items() if key != "verdict"} if isinstance(data, dict) else data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Decide by `verdict_of`; a claim about a teacher needs MIN_SEEDS."""
        if self.too_few_seeds:
            return "inconclusive"
        return verdict_of(self.difference, self.low, self.high, self.p, self.margin)

    @property
    def too_few_seeds(self) -> bool:
        return self.claim == "teacher" and self.num_seeds < MIN_SEEDS

    @property
    def text(self) -> str:
        """Say it as a column does: `gained +.012 AUC [+.003, +.021], p .008`, `equivalent within .01 AUC: ...`."""
        name = "AUC" if self.figure == "auc" else "accuracy"
        if self.difference is None:
            return f"{self.verdict}: {name} is not defined"
        bounds = [value for value in (self.difference, self.low, self.high) if value is not None]
        digits = 3 if max(map(abs, bounds)) >= 0.01 else 4
        value, *ends = (f"{bound:+.{digits}f}".replace("0.", ".", 1) for bound in bounds)
        margin = f"{self.margin:g}".removeprefix("0")
        words = {"equivalent": f"equivalent within {margin} {name}:", "inconclusive": "inconclusive:"}
        message = f"{words.get(self.verdict, self.verdict)} {value} {name}"
        if len(ends) == 2:
            message += f" [{ends[0]}, {ends[1]}]"
        if self.p is not None:
            message += ", p < .001" if self.p < 0.001 else f", p {self.p:.2g}".replace("0.", ".", 1)
        return f"{message}; {self.num_seeds} of the {MIN_SEEDS} seeds needed" if self.too_few_seeds else message
