"""The night: inventory, backfill of what is new, detectors, drift, alerts, upkeep, retraining, report.

python jobs/nightly.py                                  the demo: three days, on the third a new amplifier
python jobs/nightly.py --archives s3://icu/archives --lake s3://icu/lake
python jobs/nightly.py --archives … --lake … --date 2026-10-03 --alerts.webhook https://pager/icu
python jobs/nightly.py --archives … --lake … --registry s3://icu/registry --model icu@champion \
    --retraining.mode on

For cron: it does the nights that were missed, goes on with one that was killed, and leaves a finished one
alone. Exit codes: 0 quiet, 3 more rejects than allowed, 4 another run holds the lake, 5 new alerts, 6
critical ones, 1 a step failed.
"""

import sys

from rmsai_ray import job
from rmsai_ray.nightly.config import AlertBounds, NightlyConfig, Retraining
from rmsai_ray.nightly.flow import nightly

PRESETS = {
    "demo": NightlyConfig(
        archives="demo/nightly/archives",
        lake="demo/nightly/lake",
        registry="demo/nightly/registry",
        model="ward@champion",
        baseline_patients=12,
        alerts=AlertBounds(file="demo/nightly/alerts.jsonl"),
        retraining=Retraining(mode="on", min_patients=8, epochs=6, learning_rate=1e-3),
        keep_versions_days=0.0,
        demo=True,
    ),
}

if __name__ == "__main__":
    sys.exit(job.run(NightlyConfig, nightly, presets=PRESETS, argv=sys.argv[1:]))
