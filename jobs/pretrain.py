"""Pre-training: the normal windows of archives become a checkpoint with figures, thresholds and a card.

python jobs/pretrain.py                                       the demo: eight simulated patients, two workers
python jobs/pretrain.py --archives s3://icu/archives --output models/mine --epochs 60 --workers 4

The same command again goes on where an interrupted one stopped, with the same result.
"""

import sys

from rmsai_ray import job
from rmsai_ray.training.pretrain import PretrainConfig, pretrain

PRESETS = {
    "demo": PretrainConfig(
        archives=("demo/training/archives",),
        output="demo/training/framed-2400x64",
        epochs=2,
        workers=2,
        demo=True,
    )
}

if __name__ == "__main__":
    sys.exit(job.run(PretrainConfig, pretrain, presets=PRESETS, argv=sys.argv[1:]))
