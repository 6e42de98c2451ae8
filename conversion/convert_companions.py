"""Converts a list of networks, one per codebook, to the companions that AudioFormer's second fine-tuning (FT2) takes.

    python -m conversion.convert_companions C1 C2 C3 C4 TARGET

The sources are folders or Hub ids in the order of the codebooks that they were trained on: RoFormers of Transformers,
or AudioFormers of one codebook. Their licence is that of whoever trained them. TARGET gets the folders c1, c2, ..., of
which c1 is the network to fine-tune and the others are given to `hf-audioformer finetune` as `companions`.

Before anything is written, each network's outputs are compared with its source's on random codes of its codebook;
the largest difference is printed, and above 1e-5 nothing is written.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, RoFormerModel

from conversion.common import accept, command_line, largest_difference
from conversion.convert_roformer import audioformer_from_roformer
from hf_audioformer import AudioFormerModel

LARGEST_DIFFERENCE = 1e-5
MODEL_TYPES = ("audioformer", "roformer")


def companion_of(source: str, codebook_index: int) -> tuple[AudioFormerModel, AudioFormerModel | RoFormerModel]:
    """A network that reads the codebook `codebook_index`, and the source that it was made from.

    Raises:
        ValueError: The source is another model, or reads several codebooks.
    """
    model_type = AutoConfig.from_pretrained(source).model_type
    if model_type not in MODEL_TYPES:
        raise ValueError(f'{source}: model_type is "{model_type}"; allowed are {", ".join(MODEL_TYPES)}.')
    original = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    if isinstance(original, RoFormerModel):
        network = audioformer_from_roformer(original)
    else:
        network = AudioFormerModel.from_pretrained(source, dtype=torch.float32).eval()
    config = network.config
    if config.num_codebooks != 1:
        raise ValueError(f"{source}: reads {config.num_codebooks} codebooks; companions read one each.")
    config.codebook_index = network.embeddings.codebook_index = codebook_index
    return network, original


@torch.no_grad()
def verify(networks: Sequence[AudioFormerModel], originals: Sequence[AudioFormerModel | RoFormerModel]) -> float:
    """The largest difference of the networks' outputs, on clips of all codebooks, and the originals', on their own.

    Raises:
        ValueError: It is above 1e-5.
    """
    shape, generator = (2, 100, len(networks)), torch.Generator().manual_seed(0)
    codes = torch.randint(min(network.config.codebook_size for network in networks), shape, generator=generator)
    differences = [
        largest_difference(network(codes).last_hidden_state, original(codes[..., index]).last_hidden_state)
        for index, (network, original) in enumerate(zip(networks, originals, strict=True))
    ]
    return accept(max(differences), LARGEST_DIFFERENCE, "outputs differ from the sources'")


def check_sizes(networks: Sequence[AudioFormerModel], sources: Sequence[str]) -> None:
    """Raises ValueError where a network has another width or codebook size than the first."""
    for name in ("hidden_size", "codebook_size"):
        sizes = [getattr(network.config, name) for network in networks]
        for source, size in zip(sources, sizes, strict=True):
            if size != sizes[0]:
                raise ValueError(f"{source}: {name} is {size}, but that of {sources[0]} is {sizes[0]}; all must agree.")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("sources", nargs="+", help="the networks of the first, second, ... codebook")
    parser.add_argument("target", help="folder to write")
    arguments = parser.parse_args()

    pairs = [companion_of(source, index) for index, source in enumerate(arguments.sources)]
    networks = [network for network, _ in pairs]
    check_sizes(networks, arguments.sources)
    if arguments.verify:
        print(f"largest difference of outputs: {verify(networks, [original for _, original in pairs]):.1e}")
    for index, network in enumerate(networks, start=1):
        network.save_pretrained(Path(arguments.target) / f"c{index}")


if __name__ == "__main__":
    main()
