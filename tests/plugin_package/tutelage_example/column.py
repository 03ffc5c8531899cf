"""A column of the leaderboard: a figure that a row's details hold."""

from tutelage.leaderboard.columns import Column

SIZE_RATIO = Column(
    name="int8_size_ratio",
    help="Bytes of the int8 file as a fraction of the fp32 file's.",
    at=("quantization.size_ratio",),
    label="int8 / fp32 size",
    group="cost",
    better="min",
)
