"""Backfill: archives of bedside-monitor events become embeddings, scores and tables, each archive once.

python jobs/backfill.py                                       the demo: real ECG, local Ray, local folders
python jobs/backfill.py --archives s3://icu/archives --lake s3://icu/lake
ray job submit --working-dir . -- python jobs/backfill.py --archives … --lake …
"""

import sys

from rmsai_ray import job
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.backfill.flow import backfill

PRESETS = {"demo": BackfillConfig(archives="demo/archives", lake="demo/lake", demo=True)}

if __name__ == "__main__":
    sys.exit(job.run(BackfillConfig, backfill, presets=PRESETS, argv=sys.argv[1:]))
