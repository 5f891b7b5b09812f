"""Maintenance of a lake: compaction of Parquet and LanceDB, old versions gone, old results to an archive.

python jobs/maintain.py                                  the demo: six simulated patients, local folders
python jobs/maintain.py --lake s3://icu/lake
python jobs/maintain.py --lake s3://icu/lake --embeddings float16
python jobs/maintain.py --lake s3://icu/lake --archive-older-than-months 24 --archive s3://cold/icu
python jobs/maintain.py --lake s3://icu/lake --restore-since 2024-01 --archive s3://cold/icu

Queries give the same answers before and after. It waits for no backfill: a lake that one works on is refused.
"""

import sys

from rmsai_ray import job
from rmsai_ray.backfill.maintain import MaintainConfig, maintain

PRESETS = {
    "demo": MaintainConfig(lake="demo/maintain/lake", keep_versions_days=0.0, demo=True),
}

if __name__ == "__main__":
    sys.exit(job.run(MaintainConfig, maintain, presets=PRESETS, argv=sys.argv[1:]))
