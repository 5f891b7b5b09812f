"""From datasets to signals with rate and unit; changes when another way of storing samples turns up."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives.format import SignalItem
from rmsai_ray.archives.limits import Budget
from rmsai_ray.archives.nodes import Array, Dataset, Group, UnreadableError
from rmsai_ray.archives.problems import problem
from rmsai_ray.archives.records import Problem, Signal
from rmsai_ray.archives.values import finite

PLAUSIBLE_RATES_HZ: Final = (1.0, 100_000.0)
USUAL_RATE_HZ: Final = 200.0
"""Of models; slower signals grow on their way to them."""


class WaveformReader:
    """Reads the signals of one archive's events.

    ``problems`` holds what is odd about the archive's sampling rates; what is odd about one signal goes to
    the list that the caller passes.
    """

    def __init__(self, metadata: dict[str, Any], gain_mv_per_count: float | None) -> None:
        self.problems: list[Problem] = []
        self._gain = gain_mv_per_count
        self._seconds = _event_seconds(metadata)
        items = (*archive_format.ECG_SIGNALS.values(), archive_format.PPG, archive_format.RESP)
        expected = {item.rate_field: item.fs for item in items}
        self._rates_hz = {
            field: self._rate(metadata[field], fs, f"metadata/{field}", self.problems)
            if field in metadata
            else fs
            for field, fs in expected.items()
        }

    def leads(self, ecg: Group, problems: list[Problem]) -> dict[str, Signal]:
        """All usable leads, in canonical order."""
        leads = {}
        for name, item in archive_format.ECG_SIGNALS.items():
            if name not in ecg:
                problems.append(problem("missing_lead", f"{ecg.path}/{name}", f"{name} is absent"))
                continue
            signal = self._signal(ecg, name, item, "unreadable_lead", problems)
            if signal is not None:
                leads[name] = signal
        if any(signal.unit == "raw" for signal in leads.values()):
            problems.append(problem("unit_raw", ecg.path, "integer counts, and no gain was given"))
        return leads

    def waveform(self, event: Group, item: SignalItem, problems: list[Problem]) -> Signal | None:
        """PPG or RESP; None where there is none that can be used."""
        group_name, name = item.path.split("/")
        try:
            group = event.group(group_name)
        except UnreadableError as error:
            problems.append(problem("unreadable_waveform", f"{event.path}/{item.path}", str(error)))
            return None
        if group is None or name not in group:
            if item.lenient:
                problems.append(problem("missing_waveform", f"{event.path}/{item.path}", f"{name} is absent"))
            return None
        return self._signal(group, name, item, "unreadable_waveform", problems)

    def _signal(
        self, group: Group, name: str, item: SignalItem, unreadable: str, problems: list[Problem]
    ) -> Signal | None:
        where = f"{group.path}/{name}"
        try:
            dataset = group.dataset(name)
            assert dataset is not None, where
            stored = dataset.array()
        except UnreadableError as error:
            problems.append(problem(unreadable, where, str(error)))
            return None
        group.budget.charge(stored.size * (8 - stored.itemsize), where)
        samples = stored.astype(np.float64, copy=False)
        is_count = item.unit == "mV" and stored.dtype.kind in "iu"
        if is_count and self._gain is not None:
            samples *= self._gain
        num_bad = samples.size - int(np.count_nonzero(np.isfinite(samples)))
        if num_bad == samples.size:
            problems.append(problem("empty_signal", where, f"none of {samples.size} samples is finite"))
            return None
        if num_bad:
            samples[~np.isfinite(samples)] = np.nan
            problems.append(problem("nan_samples", where, f"{num_bad} of {samples.size} samples"))
        fs = self._dataset_rate(dataset, item, problems)
        _charge(group.budget, stored, fs, where)
        if samples.size < int(self._seconds * fs):
            problems.append(problem("short_signal", where, f"{samples.size} samples at {fs:g} Hz"))
        unit = "raw" if is_count and self._gain is None else item.unit
        return Signal(samples=samples, fs=fs, unit=unit)

    def _dataset_rate(self, dataset: Dataset, item: SignalItem, problems: list[Problem]) -> float:
        """The dataset's own attribute, else the archive's rate."""
        own = dataset.attribute("sampling_rate")
        usual = self._rates_hz[item.rate_field]
        return usual if own is None else self._rate(own, usual, dataset.path, problems)

    @staticmethod
    def _rate(value: object, expected_hz: float, where: str, problems: list[Problem]) -> float:
        rate_hz = finite(value)
        lowest, highest = PLAUSIBLE_RATES_HZ
        if rate_hz is None or not lowest <= rate_hz <= highest:
            problems.append(
                problem("odd_rate", where, f"{value!r} is no rate; {expected_hz:g} Hz is assumed")
            )
            return expected_hz
        if rate_hz != expected_hz:
            problems.append(problem("odd_rate", where, f"{rate_hz:g} Hz instead of {expected_hz:g} Hz"))
        return rate_hz


def _charge(budget: Budget, stored: Array, fs: float, where: str) -> None:
    """For what slow samples become at the usual rate."""
    budget.count_rate(fs)
    more = int(stored.size / fs * USUAL_RATE_HZ) - stored.size
    if more > 0:
        budget.charge(8 * more, where)


def _event_seconds(metadata: dict[str, Any]) -> float:
    before, after = (finite(metadata.get(f"seconds_{side}_event")) for side in ("before", "after"))
    if before is None or after is None or not 0 < before + after < 86_400:
        return archive_format.EVENT_SECONDS
    return before + after
