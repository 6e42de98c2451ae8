"""Train an AudioFormer classifier in a loop of your own with Accelerate: every step in plain sight.

    python examples/train_with_accelerate.py                                   # on one device
    torchrun --nproc_per_node 2 examples/train_with_accelerate.py              # on two CPU processes
    accelerate launch --num_processes 8 examples/train_with_accelerate.py      # on eight GPUs

The loop is the one of every PyTorch tutorial. Accelerate adds three things: it puts model and batches on the device,
hands each process its share of the clips, and averages the gradients of all processes.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_audioformer import assets, read_clips
from hf_audioformer.data import CodeCollator, SplitArguments, make_splits
from hf_audioformer.data.clip_codes import codes_of_clips
from hf_audioformer.data.code_dataset import CodeDataset

BATCH_SIZE = 16


def main(data: str, output: str, epochs: int) -> float:
    """Trains, and returns the accuracy on the test clips."""
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    set_seed(0)

    clips = read_clips(data)
    by_column = SplitArguments(kind="column", column="split")
    (split,) = make_splits(clips, by_column if "split" in clips.table.column_names else SplitArguments())
    checkpoint = assets.checkpoint_folder()
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    codes = codes_of_clips(clips, extractor)
    train, test = (
        CodeDataset([codes[index] for index in part], clips.targets(part)) for part in (split.train, split.test)
    )

    collator = CodeCollator(extractor.special_token_id("pad"))
    train_loader = DataLoader(train, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collator)
    test_loader = DataLoader(test, batch_size=BATCH_SIZE, collate_fn=collator)
    model = AutoModelForAudioClassification.from_pretrained(checkpoint)
    model.resize_classifier(clips.label_names)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.05)
    model, optimizer, train_loader, test_loader = accelerator.prepare(model, optimizer, train_loader, test_loader)
    # Made after `prepare`, which divides the batches among the processes: one step of the schedule per batch of ours.
    schedule = OneCycleLR(optimizer, max_lr=5e-4, total_steps=epochs * len(train_loader), pct_start=0.1)

    for epoch in range(epochs):
        model.train()
        losses = []
        for batch in train_loader:
            loss = model(**batch).loss  # labels are in the batch, so the model computes the loss itself
            accelerator.backward(loss)  # in place of loss.backward()
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        mean_loss = accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        accelerator.print(f"epoch {epoch + 1}/{epochs}  loss {mean_loss:.4f}")

    accuracy = measure(model, test_loader, accelerator)
    accelerator.print(f"{len(test)} test clips: accuracy {accuracy:.1%}, by chance {1 / len(clips.label_names):.1%}")
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(output)
        extractor.save_pretrained(output, include_codec=True)  # so that the folder works alone, anywhere
    accelerator.end_training()
    return accuracy


@torch.no_grad()
def measure(model: torch.nn.Module, loader: DataLoader, accelerator: Accelerator) -> float:
    """Share of the clips whose most likely class is the right one."""
    model.eval()
    right = []
    for batch in loader:
        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
        # Each process has its own batches, and the last may hold clips twice; `gather_for_metrics` drops those again.
        right.append(accelerator.gather_for_metrics(found == batch["labels"]))
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="commands", help="folder, csv, parquet, Hub id, or commands (the bundled ones)"
    )
    parser.add_argument("--output", default="my_model", help="where the model goes")
    parser.add_argument("--epochs", type=int, default=12)
    main(**vars(parser.parse_args()))
