"""All speed comparisons: `python -m benchmarks` (a few minutes on two cores).

Each runs in a process of its own: memory that an earlier one has touched makes the next one faster.
"""

import subprocess
import sys

BENCHMARKS = (
    "model_speed",
    "codec_speed",
    "fbank_speed",
    "ast_speed",
    "lean_speed",
    "ft2_speed",
    "metrics_speed",
    "export_speed",
    "long_clips",
)

for name in BENCHMARKS:
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
    print()
