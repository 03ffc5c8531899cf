"""What a device says of itself while it is measured (`DeviceState`), and what a program says of a turn (`TurnReport`).

Parts of `records.Measurement`; import them from `tutelage.records`.
"""

from __future__ import annotations

from pydantic import Field

from .record import Record


class DeviceState(Record):
    """The thermal state, clock and power supply of a device at a moment; what it does not say is empty or None."""

    governor: str = ""  # several kinds of cores: joined by "+"
    frequency_mhz: tuple[float, ...] = ()  # the clocks of its cores, each value once, ascending
    limit_mhz: tuple[float, ...] = ()  # what the clocks may rise to now
    max_frequency_mhz: tuple[float, ...] = ()  # what the hardware can do
    temperature_c: float | None = None  # of the hottest zone
    thermal_status: str = ""  # Android's: none, light, moderate, severe, critical, emergency, shutdown
    throttled: bool | None = None  # whether the system holds the processor's clock down because of heat
    charging: bool | None = None  # whether its battery is
    on_battery: bool | None = None  # whether no power comes from outside
    battery_percent: float | None = Field(None, ge=0, le=100)

    @property
    def heat(self) -> str:
        """Say in some words how hot the device is; empty where it does not tell."""
        said = [f"thermal status {self.thermal_status}"] if self.thermal_status else []
        if self.temperature_c is not None:
            said.append(f"{self.temperature_c:.0f} degrees Celsius")
        return ", ".join(said)


class TurnReport(Record):
    """What a benchmark program reports of the inferences of one turn where it does not report each one, in ms."""

    runs: int = Field(gt=0)
    mean_ms: float = Field(gt=0)
    median_ms: float | None = Field(None, gt=0)
    min_ms: float | None = Field(None, gt=0)
    max_ms: float | None = Field(None, gt=0)
