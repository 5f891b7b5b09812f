"""Words that say nothing of a person: what pseudonymised archives may keep of their texts, as data."""

from __future__ import annotations

from typing import Final

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives.labels import RHYTHMS, SCP_RHYTHMS
from rmsai_ray.archives.scp import RHYTHM_CODES, SUPERCLASS_OF
from rmsai_ray.signals.leads import LEADS

_CONDITION_WORDS = """
    abnormal abnormalities abnormality accelerated alarm amplitude and aneurysm anterior anterolateral
    anteroseptal apnea arrhythmia arrest artifact artificial asystole atrial av beat beats bigeminal bigeminy
    block bpm brady bradycardia branch bundle changes compatible complete complex conduction couplet criteria
    degree depression desaturation diagnostic diastolic digitalis disturbance drug ecg ectopic edis effect
    electrolytic elevation enlargement escape exit extreme fascicular fib fibrillation first flutter for
    former frontal functioning heart high horizontal hr hypertension hypertrophy hypotension idioventricular
    in incomplete infarction inferior inferolateral inferoposterior inferoposterolateral injury interval
    intraventricular inverted irregular ischemia ischemic junctional lateral lead leads left limit long low
    mit bih missed monomorphic multifocal myocardial no non normal of off on or origin overload pac paced
    pacemaker pacer pacing paroxysmal pattern pause polymorphic posterior pr pre preexcitation
    premature present prolonged ptb pulse pvc q qrs qt r rate respiration respiratory rhythm right run s
    saturation second septal short sinus specific spo st subendocardial supraventricular sustained sv svt
    syndrome systolic t tach tachy tachycardia temperature the third torsades trigeminal trigeminy u unknown
    ventricular vfib voltage voltages vtach vt vf wave waves with xl
    afib afl a v
    excitation i ii iii iv
"""
CONDITION_WORDS: Final = frozenset(_CONDITION_WORDS.split())
"""Of alarms and of statements on ECGs, in lower case."""

KNOWN_CONDITIONS: Final = frozenset(
    {*RHYTHMS.values(), *SCP_RHYTHMS.values(), *RHYTHMS, *SCP_RHYTHMS, "Wolf-Parkinson-White syndrome"}
)
SCP_CODES: Final = frozenset({*SUPERCLASS_OF, *RHYTHM_CODES})
ANNOTATION_SYMBOLS: Final = frozenset("NLRBAaJSVrFejnE/fQ?[!]x()ptu`'^|~+sTM=@*D\"")
"""All of WFDB's, each one character."""
WAVES: Final = frozenset("PQRST")
VITAL_EXTRAS: Final = frozenset({"step_count", "time_since_posture_change"})
"""Numbers."""
HISTORY_SOURCES: Final = frozenset({"synthetic"})

_VITAL_UNITS = {vital.units for vital in archive_format.VITALS.values()}
UNITS: Final = frozenset(
    {*_VITAL_UNITS, *archive_format.UNITS, *archive_format.UNITS.values(), "/min", "rpm"}
)
SIGNAL_UNITS: Final = frozenset({"mV", "raw", ""})

_ITEMS = (*archive_format.METADATA, *archive_format.EVENT, *archive_format.VITAL)
_PATHS = (*(item.path for item in _ITEMS), *(signal.path for signal in archive_format.SIGNALS))
PLACES: Final = frozenset(
    {"ecg", "ppg", "resp", "vitals", "metadata", "extras", *LEADS, *archive_format.VITALS}
    | {part for path in _PATHS for part in path.split("/")}
)
"""Names of groups and datasets that the format itself has."""
