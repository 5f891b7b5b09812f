"""Repack: many small archives become few large objects that are read several times faster; and back.

python jobs/repack.py                                         the demo: a few archives into demo/packed
python jobs/repack.py --archives s3://icu/archive --output s3://icu/packed
python jobs/repack.py --archives s3://icu/packed --output /data/archive --unpack
"""

import sys

from rmsai_ray import job
from rmsai_ray.corpus.repack import RepackConfig, repack

PRESETS = {"demo": RepackConfig(archives="demo/loose", output="demo/packed", demo=True)}

if __name__ == "__main__":
    sys.exit(job.run(RepackConfig, repack, presets=PRESETS, argv=sys.argv[1:]))
