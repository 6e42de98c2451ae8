"""A slow training of a stock AST that is meant to be sent SIGTERM; run as a script, alone or under a launcher.

sigterm_launched.py FOLDER WORKERS

It goes on from what FOLDER holds. After each step a process leaves its number in `step_RANK_STEP`; at the end its log
and weights, or, when it was stopped, what it was told.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_audioformer.training.averaging import AveragingArguments
from hf_audioformer.training.checkpoints import newest_complete_checkpoint
from hf_audioformer.training.interruption import TrainingStopped
from hf_audioformer.training.trainer import AudioTrainer
from tests.training.tiny_ast import log_of, make_clips, make_model, make_trainer, weights_of

STOPPED = 143


class SlowClips:
    """Thirty clips, each of which takes a while."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.clips = make_clips([index % 3 for index in range(30)])

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(self.seconds)
        return self.clips[index]


class Progress(TrainerCallback):
    def __init__(self, folder: Path):
        self.folder = folder

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        name = f"step_{args.process_index}_{state.global_step}"
        (self.folder / f"{name}.tmp").write_text(str(os.getpid()))
        (self.folder / f"{name}.tmp").rename(self.folder / name)


def build(folder: Path, workers: int, processes: int, seconds: float, model_seed: int = 0) -> AudioTrainer:
    """Fifteen steps in three epochs, with dropout; logs and validates after each, averages over all."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {"per_device_train_batch_size": 6 // processes, "save_strategy": "epoch", "eval_strategy": "epoch"}
    return make_trainer(
        folder,
        make_model(model_seed),
        SlowClips(seconds),
        chosen=chosen | {"dataloader_num_workers": workers, "dataloader_prefetch_factor": 1 if workers else None},
        eval_dataset=make_clips([0, 1, 2], seed=1),
        averaging=AveragingArguments(kind="ema", decay=0.8, keep="always"),
        callbacks=[Progress(folder)],
    )


def main() -> None:
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    checkpoint = newest_complete_checkpoint(folder)
    trainer = build(folder, workers, processes, seconds=0.01, model_seed=0 if checkpoint is None else 1)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except TrainingStopped as stopped:
        (folder / f"stopped_{rank}").write_text(str(stopped))
        sys.exit(STOPPED)
    save_file(weights_of(trainer.model), folder / f"weights_{rank}.safetensors")
    (folder / f"log_{rank}.json").write_text(json.dumps(log_of(trainer)))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
