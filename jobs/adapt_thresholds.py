"""Adaptive thresholds: a nightly round that moves a named profile towards recent scores, within bounds.

python jobs/adapt_thresholds.py                               the demo: the lake of the backfill's demo
python jobs/adapt_thresholds.py --lake s3://icu/lake --dry-run
python jobs/backfill.py --threshold-profile adaptive …        nothing takes the profile unless it is asked for
"""

import sys

from rmsai_ray import job
from rmsai_ray.detection.adapt import AdaptConfig, adapt

PRESETS = {"demo": AdaptConfig(lake="demo/lake")}

if __name__ == "__main__":
    sys.exit(job.run(AdaptConfig, adapt, presets=PRESETS, argv=sys.argv[1:]))
