"""Processes of their own that start at once: a server that has imported what they need forks them.

A Python that has yet to import torch and Transformers spends seconds on that. What real launchers start is left to
`tests/training/test_launch.py`; here several processes get of them what `torchrun` would tell them.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

PRELOADED = [f"hf_audioformer.recipes.{name}" for name in ("finetune", "finetune_ast", "pretrain")]

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(PRELOADED)


def start(
    main: Callable[[], object],
    *argv: object,
    output: Path = Path(os.devnull),
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Calls `main`, a function of a module, with `sys.argv[1:]` as given, in a process that leads a group of its own.

    Args:
        output: file to which what it prints is added.
        environment: settings beside those of this process; no GPU is in sight.
    """
    settings = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
    process = server.Process(target=_run, args=(main, [str(word) for word in argv], str(output), settings))
    process.start()
    return process


def start_together(
    main: Callable[[], object], *argv: object, output: Path = Path(os.devnull), nodes: int = 1
) -> list[BaseProcess]:
    """Two processes that find each other, as `torchrun --nproc_per_node 2` starts them, or on two nodes one each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    world = meeting | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": str(2 // nodes)}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank if nodes == 1 else "0"} for rank in ("0", "1")]
    return [start(main, *argv, output=output, environment=world | rank) for rank in ranks]


def exit_codes(processes: list[BaseProcess], timeout: float = 110) -> list[int | None]:
    """How the processes ended, by `sys.exit` or by -signal; those that have not after `timeout` seconds are killed."""
    for process in processes:
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _run(main: Callable[[], object], argv: list[str], output: str, environment: dict[str, str]) -> None:
    os.setsid()
    with open(output, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # not the server's, which is slow to start workers
    sys.argv = [main.__module__, *argv]
    sys.exit(main())
