"""Plans a corpus of simulated archives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rmsai_ray.archives.broken import break_archive, broken_file_names
from rmsai_ray.archives.simulator import DEFAULT_PERIOD, archive_name, check_options, simulate_archive
from rmsai_ray.corpus.produce import Item, Plan, produce
from rmsai_ray.errors import ConfigError

Preset = Literal["balanced", "original", "all-normal", "all-abnormal", "high-anomaly"]


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """Simulates archives of bedside-monitor events; the same options give the same bytes."""

    events: int
    """Events in all."""
    output: str
    """Where the archives go: a folder or s3://bucket/prefix."""
    seed: int = 0
    """Of the whole corpus."""
    events_per_archive: int = 10
    """Events of one patient and month; the last archive takes the rest."""
    preset: Preset = "balanced"
    """Mix of conditions; original is the original generator's, high-anomaly has 5 % normal events."""
    proportions: tuple[float, float, float, float, float] | None = None
    """Normal, tachycardia, bradycardia, AF and VT instead of a preset; scaled to sum 1."""
    period: str = DEFAULT_PERIOD
    """Month that the events fall into, YYYY-MM."""
    first_patient: int = 0
    """Number of the first patient: a later one adds new patients to an output."""
    broken: bool = False
    """Also one archive of every kind of damage that a reader must survive, below broken/."""

    def __post_init__(self) -> None:
        if self.events_per_archive < 1:
            raise ConfigError(
                "events_per_archive", self.events_per_archive, "must be at least 1", "Give more."
            )
        check_options(self.first_patient, self.events, self.seed, self.preset, self.proportions, self.period)


@dataclass(frozen=True, kw_only=True)
class SimulatedArchive:
    """What one archive is made from."""

    patient_index: int
    num_events: int
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DamagedArchive:
    """Likewise, of a broken one."""

    kind: str
    seed: int


def simulate(config: SimulateConfig) -> None:
    """Writes the archives of a configuration that are not there yet.

    Raises:
        ConfigError: the output holds archives of the same names and other options.
    """
    options = {name: value for name, value in asdict(config).items() if name != "output"}
    items = [*_simulated_items(config), *(_broken_items(config) if config.broken else [])]
    produce(Plan(job="simulate", options=options, items=items, make=make), config.output)


def make(source: SimulatedArchive | DamagedArchive) -> bytes:
    """The bytes of one archive."""
    if isinstance(source, DamagedArchive):
        return break_archive(source.kind, source.seed).content
    return simulate_archive(source.patient_index, source.num_events, **source.options)[1]


def _simulated_items(config: SimulateConfig) -> list[Item[SimulatedArchive | DamagedArchive]]:
    options = {
        "seed": config.seed,
        "preset": config.preset,
        "proportions": config.proportions,
        "period": config.period,
    }
    starts = range(0, config.events, config.events_per_archive)
    return [
        Item(
            key=archive_name(patient, config.period),
            source=SimulatedArchive(
                patient_index=patient,
                num_events=min(config.events_per_archive, config.events - start),
                options=options,
            ),
        )
        for patient, start in enumerate(starts, config.first_patient)
    ]


def _broken_items(config: SimulateConfig) -> list[Item[SimulatedArchive | DamagedArchive]]:
    return [
        Item(key=f"broken/{kind}/{name}", source=DamagedArchive(kind=kind, seed=config.seed))
        for kind, name in broken_file_names().items()
    ]
