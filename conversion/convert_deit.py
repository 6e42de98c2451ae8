"""Converts a DeiT or ViT trained on images to an Audio Spectrogram Transformer that has yet to learn sounds.

    python -m conversion.convert_deit facebook/deit-base-distilled-patch16-384 TARGET --labels dog,rain --seconds 5

SOURCE is a folder or Hub id of `transformers.DeiTModel` or `ViTModel` weights, with or without a head. AST starts from
facebook/deit-base-distilled-patch16-384 (https://github.com/facebookresearch/deit, Apache-2.0); the licence of another
source is on its card. Patch weights are summed over the colours, positions are moved to the spectrogram's grid, and the
head is new, drawn by --seed. `hf-audioformer finetune-ast` takes image models as they are; this is for other trainers.

Before anything is written, a grey image goes through the source and, as a spectrogram of the image's size, through an
AST made of it; the largest difference of their outputs is printed, and above 1e-4 nothing is written. A ViT has no
distillation token, so its layers are given the class token twice.
"""

from typing import Any

import torch
from transformers import ASTFeatureExtractor, AutoConfig, DeiTModel, ViTModel

from conversion.common import accept, command_line, largest_difference
from hf_audioformer import ast_from_deit, ast_from_vit

LARGEST_DIFFERENCE = 1e-4
KINDS = {"deit": (DeiTModel, ast_from_deit), "vit": (ViTModel, ast_from_vit)}


def kind_of(source: str) -> tuple[Any, Any]:
    """The class of the source's body, and the function that makes an AST of it.

    Raises:
        ValueError: The source is neither a DeiT nor a ViT.
    """
    model_type = AutoConfig.from_pretrained(source).model_type
    if model_type not in KINDS:
        raise ValueError(f'{source}: model_type is "{model_type}"; allowed are {", ".join(KINDS)}.')
    return KINDS[model_type]


@torch.no_grad()
def verify(source: str) -> float:
    """The largest difference of the outputs (batch, tokens, channels) of the source and of an AST on its own grid.

    Raises:
        ValueError: It is above 1e-4.
    """
    body_class, convert = kind_of(source)
    body = body_class.from_pretrained(source, dtype=torch.float32, add_pooling_layer=False).eval()
    patches = body.embeddings.patch_embeddings
    (height, width), (step, _) = patches.image_size, patches.patch_size
    grid = {"num_mel_bins": height, "max_length": width, "time_stride": step, "frequency_stride": step}
    sounds = convert(source, num_labels=1, **grid).audio_spectrogram_transformer
    grey = torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    hidden_states = body.embeddings(grey.expand(-1, body.config.num_channels, -1, -1))
    if body_class is ViTModel:
        hidden_states = torch.cat([hidden_states[:, :1], hidden_states], dim=1)
    for layer in body.layers:
        hidden_states = layer(hidden_states)
    found = sounds(grey[:, 0].transpose(1, 2)).last_hidden_state
    difference = largest_difference(found, body.layernorm(hidden_states))
    return accept(difference, LARGEST_DIFFERENCE, "outputs differ from the image model's")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("source", help="folder or Hub id of a DeiT or ViT")
    parser.add_argument("target", help="folder to write")
    parser.add_argument("--labels", required=True, help="names of the classes, separated by commas")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float, help="length of the clips")
    length.add_argument("--max-length", type=int, help="frames of 10 ms that the model reads")
    parser.add_argument("--strides", type=int, nargs=2, default=(10, 10), metavar=("FREQUENCY", "TIME"))
    parser.add_argument("--seed", type=int, default=0, help="of the head's weights")
    parser.add_argument("--mean", type=float, help="of the training features, as `hf-audioformer stats` tells it")
    parser.add_argument("--std", type=float, help="of the training features, not doubled")
    arguments = parser.parse_args()
    if (arguments.mean is None) != (arguments.std is None):
        parser.error(f"--mean is {arguments.mean} and --std {arguments.std}; give both or none")

    _, convert = kind_of(arguments.source)
    if arguments.verify:
        print(f"largest difference of outputs: {verify(arguments.source):.1e}")
    frequency_stride, time_stride = arguments.strides
    model = convert(
        arguments.source,
        seed=arguments.seed,
        label_names=[name.strip() for name in arguments.labels.split(",")],
        seconds=arguments.seconds,
        max_length=arguments.max_length,
        frequency_stride=frequency_stride,
        time_stride=time_stride,
    )
    statistics = {} if arguments.mean is None else {"mean": arguments.mean, "std": arguments.std}
    model.save_pretrained(arguments.target)
    ASTFeatureExtractor(max_length=model.config.max_length, **statistics).save_pretrained(arguments.target)


if __name__ == "__main__":
    main()
