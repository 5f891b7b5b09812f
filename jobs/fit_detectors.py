"""Fitting detectors: the normal windows of a lake become a detector set for the model that made the lake.

python jobs/fit_detectors.py                                  the demo: ten simulated patients, local folders
python jobs/fit_detectors.py --lake s3://icu/lake --output models/mine/detectors

A backfill then scores with it: --detectors FOLDER, or nothing where the set lies in the model's folder.
"""

import sys

from rmsai_ray import job
from rmsai_ray.backfill.fit_detectors import FitDetectorsConfig, fit_detectors

PRESETS = {
    "demo": FitDetectorsConfig(lake="demo/detectors/lake", output="demo/detectors/set", demo=True),
}

if __name__ == "__main__":
    sys.exit(job.run(FitDetectorsConfig, fit_detectors, presets=PRESETS, argv=sys.argv[1:]))
