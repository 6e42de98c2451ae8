"""What the recipes let Transformers say on the screen: one bar, and one line per epoch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from .averaging import AveragingResult

__all__ = ["EpochLines", "quiet_transformers"]

# What the Trainer adds to its measures: speeds, and the score that repeats one of them.
_NOT_SHOWN = ("runtime", "per_second", "score", "model_preparation_time")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences bars and reports of loading and saving weights, where the recipe knows what they would say."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


class EpochLines(TrainerCallback):
    """A bar over the steps, and a line for each evaluation, or for each logged loss where nothing is evaluated."""

    def __init__(self) -> None:
        self._train_bar: tqdm | None = None
        self._evaluate_bar: tqdm | None = None
        self._losses: Mapping[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._train_bar = _bar(args, state, "train", state.max_steps, initial=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._train_bar is not None:
            self._train_bar.update()

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        if self._evaluate_bar is None:
            self._evaluate_bar = _bar(args, state, "evaluate", len(eval_dataloader), leave=False)
        self._evaluate_bar.update()

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self._evaluate_bar is not None:
            self._evaluate_bar.close()
        self._evaluate_bar = None

    on_predict = on_evaluate

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            self._losses = {name: value for name, value in logs.items() if name == "loss" or name.endswith("_loss")}
        is_last_of_epoch = "eval_loss" in logs or ("loss" in logs and args.eval_strategy == "no")
        if self._train_bar is not None and state.is_world_process_zero and is_last_of_epoch:
            self._train_bar.write(_line(state, self._losses, logs))

    def show_average(self, state: TrainerState, result: AveragingResult) -> None:
        """Says how averaged weights did, and whether they were kept."""
        if state.is_world_process_zero:
            kept = "kept" if result.kept else "not kept"
            scores = "" if result.averaged is None else f": {result.metric} {result.averaged:.4f}"
            before = "" if result.plain is None else f", {result.plain:.4f} without"
            tqdm.write(f"averaged weights {kept}{scores}{before}")

    def close(self) -> None:
        """Ends the bars, also when training was interrupted, so that what is printed next has its own line."""
        self.on_evaluate()
        if self._train_bar is not None:
            self._train_bar.close()
        self._train_bar = None


def _bar(args: TrainingArguments, state: TrainerState, name: str, total: int, **settings: Any) -> tqdm:
    hidden = args.disable_tqdm or not state.is_world_process_zero
    return tqdm(desc=name, total=total, unit="step", dynamic_ncols=True, disable=hidden, **settings)


def _line(state: TrainerState, losses: Mapping[str, float], logs: Mapping[str, float]) -> str:
    """`epoch 3/20  loss 1.2345  mpc_loss 2.3456  validation: loss 1.3456  accuracy 0.750`."""
    text = f"epoch {state.epoch or 0:.4g}/{state.num_train_epochs}"
    text += "".join(f"  {name} {value:.4f}" for name, value in losses.items())
    measures = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
    shown = {name: value for name, value in measures.items() if not name.endswith(_NOT_SHOWN)}
    if shown:
        text += "  validation: " + "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
    return text
