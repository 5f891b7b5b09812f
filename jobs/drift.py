"""Drift: whether rows of a lake still look like the reference of the model that made them.

python jobs/drift.py                                    the demo: one day as it was, one from a new amplifier
python jobs/drift.py fit-reference --lake s3://icu/lake --until 2026-10-01
python jobs/drift.py --lake s3://icu/lake --since 2026-10-02 --until 2026-10-03

Exit codes: 0 no drift, 5 drift of inputs, 6 drift of scores, errors, decisions or embeddings.
"""

import sys

from rmsai_ray import job
from rmsai_ray.nightly.drift import DriftConfig, check

PRESETS = {
    "demo": DriftConfig(lake="demo/drift/lake", demo=True),
    "fit-reference": DriftConfig(lake="demo/drift/lake", fit_reference=True),
}

if __name__ == "__main__":
    sys.exit(job.run(DriftConfig, check, presets=PRESETS, argv=sys.argv[1:]))
