"""Fine-tune the bundled AudioFormer with the plain `transformers.Trainer`: what the recipe does, without the recipe.

    python examples/finetune_with_trainer.py                    # the bundled spoken commands: minutes on a CPU
    python examples/finetune_with_trainer.py --data my_clips    # a folder with a subfolder per class

An AudioFormer reads codes, not sound. So every clip is encoded once, before the training, and the Trainer sees lists of
whole numbers, as it does with text.
"""

import argparse

from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, Trainer, TrainingArguments

from hf_audioformer import assets, read_clips
from hf_audioformer.data import CodeCollator, SplitArguments, make_splits
from hf_audioformer.data.clip_codes import codes_of_clips
from hf_audioformer.data.code_dataset import CodeDataset
from hf_audioformer.metrics import classification_metrics


def main(data: str, output: str, epochs: int) -> dict[str, float]:
    """Trains, and returns what was measured on the test clips."""
    clips = read_clips(data)
    by_column = SplitArguments(kind="column", column="split")  # the bundled clips say which voices are for testing
    (split,) = make_splits(clips, by_column if "split" in clips.table.column_names else SplitArguments())

    # A checkpoint holds a network and the codec whose codes it reads. Each clip becomes (frames, codebooks) integers.
    checkpoint = assets.checkpoint_folder()
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    codes = codes_of_clips(clips, extractor)
    train, test = (
        CodeDataset([codes[index] for index in part], clips.targets(part)) for part in (split.train, split.test)
    )

    # The network is kept, the classifier on top is new: one output per class.
    model = AutoModelForAudioClassification.from_pretrained(checkpoint)
    model.resize_classifier(clips.label_names)

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=output,
            num_train_epochs=epochs,
            learning_rate=5e-4,
            per_device_train_batch_size=16,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            logging_strategy="epoch",
            save_strategy="no",
        ),
        train_dataset=train,
        eval_dataset=test,
        data_collator=CodeCollator(extractor.special_token_id("pad")),  # clips of a batch are padded, and masked
        compute_metrics=lambda prediction: classification_metrics(prediction.predictions, prediction.label_ids),
        processing_class=extractor,
    )
    trainer.train()
    metrics = trainer.evaluate()
    print(
        f"{len(test)} test clips: accuracy {metrics['eval_accuracy']:.1%}, by chance {1 / len(clips.label_names):.1%}"
    )

    model.save_pretrained(output)
    extractor.save_pretrained(output, include_codec=True)  # so that the folder works alone, anywhere
    print(f'Now: pipeline("audio-classification", model="{output}")')
    return metrics


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="commands", help="folder, csv, parquet, Hub id, or commands (the bundled ones)"
    )
    parser.add_argument("--output", default="my_model", help="where the model goes")
    parser.add_argument("--epochs", type=int, default=12)
    main(**vars(parser.parse_args()))
