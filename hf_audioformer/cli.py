"""The command line: `hf-audioformer <command>`. Each command's module is imported when it is called."""

import os
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

__all__ = ["COMMANDS", "main"]

PACKAGE = __name__.partition(".")[0]


class Command(NamedTuple):
    module: str
    help: str


COMMANDS = {
    "quickstart": Command("hf_audioformer.recipes.quickstart", "fine-tune the bundled checkpoint on the bundled clips"),
    "finetune": Command("hf_audioformer.recipes.finetune", "train a classifier on your labelled clips"),
    "finetune-ast": Command(
        "hf_audioformer.recipes.finetune_ast", "train an Audio Spectrogram Transformer on your labelled clips"
    ),
    "evaluate": Command("hf_audioformer.recipes.evaluate", "metrics, tables and figures of a classifier on your clips"),
    "predict": Command("hf_audioformer.recipes.predict", "labels of sound files, and when each is heard"),
    "embed": Command("hf_audioformer.recipes.embed", "vectors of clips and frames, and what sounds alike"),
    "reconstruct": Command("hf_audioformer.recipes.reconstruct", "hear what a codec keeps, at each bit rate"),
    "infill": Command("hf_audioformer.recipes.infill", "have a gap in a clip filled by a masked language model"),
    "generate": Command(
        "hf_audioformer.recipes.generate", "clips denoised, continued or with a gap filled, by a model"
    ),
    "surprise": Command("hf_audioformer.recipes.surprise", "where a clip surprises a masked language model"),
    "pretrain": Command(
        "hf_audioformer.recipes.pretrain", "masked language modelling on the codes of unlabelled clips"
    ),
    "train-generation": Command(
        "hf_audioformer.recipes.train_generation", "train a model that denoises, continues or fills clips"
    ),
    "encode": Command("hf_audioformer.recipes.encode", "encode a data set once, into shards that training takes"),
    "export": Command("hf_audioformer.recipes.export", "export a model to ONNX or torch.export, compared with torch"),
    "push": Command("hf_audioformer.recipes.push", "push a finished folder to the Hub, whole and in one commit"),
    "train-codec": Command("hf_audioformer.recipes.train_codec", "train a small neural codec on your audio"),
    "codec-report": Command("hf_audioformer.recipes.codec_report", "measure a codec made by train-codec"),
    "accelerate-config": Command(
        "hf_audioformer.recipes.accelerate_config", "the path of a configuration for `accelerate launch --config_file`"
    ),
    "stats": Command("hf_audioformer.recipes.stats", "mean and deviation of your clips' log-mels, for an AST"),
    "baseline": Command("hf_audioformer.recipes.baseline", "the simple classifiers that a model has to beat"),
    "inspect": Command("hf_audioformer.recipes.inspect", "audio transformers side by side; attention, states, codes"),
    "demo": Command("hf_audioformer.recipes.demo", "a web page on which anybody can hear what a classifier hears"),
    "doctor": Command("hf_audioformer.environment", "check the installation; a remedy for each fault"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command named by `argv` (default: the process's own) and returns the exit code.

    A mistake of the user's ends in one message and exit code 1, Ctrl-C in one line and 130; HF_AUDIOFORMER_DEBUG=1
    shows the stack trace of both.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--help", "-h"):
        print(_help())
        return 0
    if name == "--version":
        print(version(PACKAGE))
        return 0
    if name not in COMMANDS:
        print(f"hf-audioformer: unknown command {name!r}; {_nearest(name)}", file=sys.stderr)
        return 2
    try:
        import_module(COMMANDS[name].module).main(rest)
        _leave_process_group()
    except KeyboardInterrupt as interrupt:
        return _explain(interrupt, str(interrupt) or "interrupted", 130)
    except (ValueError, ImportError, OSError) as error:
        if not _is_users(error):
            raise
        return _explain(error, str(error), 1)
    return 0


def _leave_process_group() -> None:
    """Ends what `torchrun` joined; left to the interpreter's exit it now and then aborts after all is done."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _help() -> str:
    lines = [f"  {name:19}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: hf-audioformer <command> [arguments]", "", *lines, "", "hf-audioformer <command> --help says more."]
    )


def _nearest(name: str) -> str:
    nearest = get_close_matches(name, COMMANDS, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"choose from {', '.join(COMMANDS)}"


def _is_users(error: BaseException) -> bool:
    """True for files, disk and network, and for what this package itself raised; other errors are bugs."""
    if isinstance(error, (OSError, ModuleNotFoundError)):
        return isinstance(error, OSError)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE


def _explain(error: BaseException, message: str, exit_code: int) -> int:
    if os.environ.get("HF_AUDIOFORMER_DEBUG") == "1":
        traceback.print_exception(error)
    print(f"hf-audioformer: {message}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
