"""Adapt an AudioFormer with LoRA by PEFT: 2 % of the weights learn, and what is saved is a file of 150 KB.

    pip install 'hf_audioformer[lora]'
    python examples/lora_with_peft.py                    # the bundled spoken commands
    python examples/lora_with_peft.py --data my_clips    # a folder with a subfolder per class

LoRA leaves a layer's matrix W as it is and learns a product of two thin matrices beside it: W x + B A x. So one network
can carry many small adapters, one for each task.
"""

import argparse
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, Trainer, TrainingArguments

from hf_audioformer import assets, read_clips
from hf_audioformer.data import CodeCollator, SplitArguments, make_splits
from hf_audioformer.data.clip_codes import codes_of_clips
from hf_audioformer.data.code_dataset import CodeDataset
from hf_audioformer.metrics import classification_metrics


def main(data: str, output: str, epochs: int) -> dict[str, float]:
    """Trains an adapter, and returns what was measured on the test clips."""
    clips = read_clips(data)
    by_column = SplitArguments(kind="column", column="split")
    (split,) = make_splits(clips, by_column if "split" in clips.table.column_names else SplitArguments())
    checkpoint = assets.checkpoint_folder()
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    codes = codes_of_clips(clips, extractor)
    train, test = (
        CodeDataset([codes[index] for index in part], clips.targets(part)) for part in (split.train, split.test)
    )

    # Thin matrices beside the projections of query and value in every layer. The classifier is new: it learns whole.
    model = peft_model(clips.label_names)
    model.print_trainable_parameters()

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=output,
            num_train_epochs=epochs,
            learning_rate=2e-3,  # four times that of full fine-tuning: few weights learn, and from nothing
            per_device_train_batch_size=16,
            logging_strategy="epoch",
            save_strategy="no",
            label_names=["labels"],  # PEFT's wrapper hides the model's signature, by which the Trainer would find them
            remove_unused_columns=False,
        ),
        train_dataset=train,
        eval_dataset=test,
        data_collator=CodeCollator(extractor.special_token_id("pad")),
        compute_metrics=lambda prediction: classification_metrics(prediction.predictions, prediction.label_ids),
    )
    trainer.train()
    metrics = trainer.evaluate()
    print(
        f"{len(test)} test clips: accuracy {metrics['eval_accuracy']:.1%}, by chance {1 / len(clips.label_names):.1%}"
    )

    # The adapter alone is saved; it needs the checkpoint it was trained on.
    model.save_pretrained(f"{output}/adapter")
    size = sum(file.stat().st_size for file in Path(output, "adapter").glob("*.safetensors"))
    print(f"The adapter in {output}/adapter has {size / 1000:.0f} kB")

    # Merged into the weights, it is an ordinary AudioFormer that `pipeline` and the Hub take, PEFT or no PEFT.
    merged = PeftModel.from_pretrained(classifier(clips.label_names), f"{output}/adapter").merge_and_unload()
    merged.save_pretrained(output)
    extractor.save_pretrained(output, include_codec=True)
    print(f'Merged: pipeline("audio-classification", model="{output}")')
    return metrics


def classifier(label_names: tuple[str, ...]) -> AutoModelForAudioClassification:
    """The bundled network with a new classifier for these classes."""
    model = AutoModelForAudioClassification.from_pretrained(assets.checkpoint_folder())
    model.resize_classifier(label_names)
    return model


def peft_model(label_names: tuple[str, ...]) -> PeftModel:
    """That model, frozen, with thin matrices that learn."""
    adapter = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["classifier"])
    return get_peft_model(classifier(label_names), adapter)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="commands", help="folder, csv, parquet, Hub id, or commands (the bundled ones)"
    )
    parser.add_argument("--output", default="my_model", help="where the model goes")
    parser.add_argument("--epochs", type=int, default=12)
    main(**vars(parser.parse_args()))
