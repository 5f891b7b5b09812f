r"""Fine-tuning: a trained model learns further on archives of one's own, and is calibrated on them.

python jobs/finetune.py                                       the demo: the packaged model, its head only
python jobs/finetune.py --model models/mine --archives s3://ward7/archives --output models/ward7 \
    --leads ECG2 vVX --freeze encoder --lake s3://ward7/lake --cohort "heart_rate < 100"
"""

import sys

from rmsai_ray import job
from rmsai_ray.training.finetune import FinetuneConfig, finetune

PRESETS = {
    "demo": FinetuneConfig(
        archives=("demo/finetuning/archives",),
        output="demo/finetuning/model",
        epochs=1,
        workers=2,
        freeze=("encoder",),
        demo=True,
    )
}

if __name__ == "__main__":
    sys.exit(job.run(FinetuneConfig, finetune, presets=PRESETS, argv=sys.argv[1:]))
