"""Encodes clips in forked processes whose parent has used its threads; run as a script with a saved extractor."""

import sys

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import AutoFeatureExtractor

import hf_audioformer  # noqa: F401

RATE = 44_100


def main() -> None:
    extractor = AutoFeatureExtractor.from_pretrained(sys.argv[1])
    torch.set_num_threads(2)
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)
    clips = np.random.default_rng(0).normal(scale=0.1, size=(4, 2 * RATE)).astype(np.float32)
    expected = [extractor(clip, sampling_rate=RATE)["input_ids"][0] for clip in clips]

    def encode(example: dict) -> dict:
        return {"codes": extractor(np.asarray(example["clip"], np.float32), sampling_rate=RATE)["input_ids"][0]}

    mapped = Dataset.from_dict({"clip": list(clips)}).map(encode, num_proc=2, remove_columns="clip")
    print("map", "equal" if np.array_equal(mapped["codes"], expected) else "different")
    loader = DataLoader(
        list(clips), batch_size=2, num_workers=2, collate_fn=lambda batch: extractor(batch, RATE, return_tensors="pt")
    )
    loaded = torch.cat([batch["input_ids"] for batch in loader])
    print("loader", "equal" if np.array_equal(loaded, expected) else "different")


if __name__ == "__main__":
    main()
