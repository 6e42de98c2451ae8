"""Print the path of a packaged configuration for `accelerate launch`, by its name.

    accelerate launch --config_file $(hf-audioformer accelerate-config ddp) --num_processes 8 \\
        -m hf_audioformer pretrain CONFIG

Options of `accelerate launch`, such as --num_processes or --mixed_precision, win over the configuration.
"""

import sys
from pathlib import Path

__all__ = ["accelerate_configs", "main"]


def accelerate_configs() -> dict[str, Path]:
    """The packaged configurations by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "accelerate").glob("*.yaml"))}


def main(argv: list[str]) -> None:
    """Prints the path of the configuration that `argv` names, or help.

    Raises:
        ValueError: There is no such configuration.
    """
    configs = accelerate_configs()
    if not argv or argv[0] in ("--help", "-h"):
        names = [f"  {name:18}{path.read_text(encoding='utf-8').splitlines()[0][2:]}" for name, path in configs.items()]
        print("\n".join([__doc__ or "", "Arguments: NAME, one of", *names]))
        sys.exit(0)
    if len(argv) > 1 or argv[0] not in configs:
        raise ValueError(
            f"accelerate-config takes one name, found {' '.join(argv)!r}; choose from {', '.join(configs)}"
        )
    print(configs[argv[0]])
