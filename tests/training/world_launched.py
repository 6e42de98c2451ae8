"""Says which world a launch makes, or why it is refused.

world_launched.py USE_CPU EXPECTED_WORLD_SIZE CHECKED_BEFORE
"""

import ast
import sys

import torch
from transformers import TrainingArguments

from hf_audioformer.training.launch import check_launch, check_world_size


def main() -> None:
    use_cpu, expected, checked_before = map(ast.literal_eval, sys.argv[1:])
    if checked_before:
        use_cpu = check_launch(expected, use_cpu=use_cpu)
    arguments = TrainingArguments(use_cpu=use_cpu)
    try:
        check_world_size(arguments)
        print(f"world size {arguments.world_size}")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process holds what the others meet by
            torch.distributed.destroy_process_group()
