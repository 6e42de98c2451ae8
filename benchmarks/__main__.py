"""All speed comparisons: `python -m benchmarks` (a few minutes on two cores)."""

from benchmarks import codec_speed, model_speed

if __name__ == "__main__":
    model_speed.main([])
    print()
    codec_speed.main([])
