"""Converts `transformers.RoFormerModel` weights to AudioFormer and back; the outputs of the two are equal.

AudioFormer has no token types, so the vector of type 0 is folded into the embeddings on the way there and is zero on
the way back.

    python -m conversion.convert_roformer SOURCE TARGET [--to roformer]

SOURCE is a folder or Hub id of a RoFormer checkpoint, for instance `junnyu/roformer_chinese_base` (Apache-2.0), or with
`--to roformer` of an AudioFormer. The largest difference of the outputs on random codes is printed; above 1e-5 nothing
is written.
"""

import torch
from transformers import RoFormerConfig, RoFormerModel

from conversion.common import accept, command_line, largest_difference
from hf_audioformer import AudioFormerConfig, AudioFormerModel
from hf_audioformer.models.audioformer.configuration_audioformer import SPECIAL_TOKENS

LARGEST_DIFFERENCE = 1e-5
# RoFormer's modules and AudioFormer's, within a layer.
LAYER_MODULES = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp.up",
    "output.dense": "mlp.down",
    "output.LayerNorm": "mlp_norm",
}
# The settings that both configurations have, by RoFormer's names.
SETTINGS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "hidden_dropout_prob": "hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layer_norm_eps": "layer_norm_eps",
    "initializer_range": "initializer_range",
}


def _module_pairs(num_layers: int) -> dict[str, str]:
    pairs = {"embeddings.LayerNorm": "embeddings.norm"}
    for layer in range(num_layers):
        pairs |= {f"encoder.layer.{layer}.{r}": f"layers.{layer}.{a}" for r, a in LAYER_MODULES.items()}
    return {f"{r}.{kind}": f"{a}.{kind}" for r, a in pairs.items() for kind in ("weight", "bias")}


def audioformer_from_roformer(source: RoFormerModel) -> AudioFormerModel:
    """An AudioFormer of one codebook whose outputs equal those of a RoFormer, whatever its length limit.

    The last four tokens of RoFormer's vocabulary become BOA, EOA, MASK and PAD.

    Raises:
        ValueError: The RoFormer turns its values too, decodes, or embeds in another size than it attends in.
    """
    config = source.config
    if config.rotary_value or config.is_decoder or config.embedding_size != config.hidden_size:
        raise ValueError(
            f"rotary_value={config.rotary_value}, is_decoder={config.is_decoder}, embedding_size="
            f"{config.embedding_size} with hidden_size={config.hidden_size}: allowed are False, False and equal sizes."
        )
    settings = {ours: getattr(config, theirs) for theirs, ours in SETTINGS.items()}
    target = AudioFormerModel(AudioFormerConfig(codebook_size=config.vocab_size - len(SPECIAL_TOKENS), **settings))
    weights = source.state_dict()
    converted = {ours: weights[theirs] for theirs, ours in _module_pairs(config.num_hidden_layers).items()}
    token_type = weights["embeddings.token_type_embeddings.weight"][0]
    converted["embeddings.code_embeddings.weight"] = weights["embeddings.word_embeddings.weight"] + token_type
    target.load_state_dict(converted)
    return target.eval()


def roformer_from_audioformer(source: AudioFormerModel, max_position_embeddings: int = 1536) -> RoFormerModel:
    """A RoFormer whose outputs equal those of a post-norm AudioFormer of one codebook, up to its longest length.

    Raises:
        ValueError: The AudioFormer is pre-norm, reads several codebooks or no codes, has other positions or another
            rotary base, or local attention.
    """
    config = source.config
    is_local = "sliding_attention" in (config.layer_types or ())
    if config.front_end != "codes" or config.position_embedding_type != "rotary" or is_local:
        raise ValueError(
            f'front_end="{config.front_end}", position_embedding_type="{config.position_embedding_type}", '
            f"layer_types={config.layer_types}: RoFormer reads codes, with rotary positions and full attention."
        )
    theta = config.rope_parameters["rope_theta"]
    if config.norm_position != "post" or config.num_codebooks != 1 or theta != 10000:
        raise ValueError(
            f'norm_position="{config.norm_position}", num_codebooks={config.num_codebooks}, rope_theta={theta}: '
            'RoFormer has "post", 1 and 10000.'
        )
    settings = {theirs: getattr(config, ours) for theirs, ours in SETTINGS.items()}
    target = RoFormerModel(
        RoFormerConfig(
            **settings,
            embedding_size=config.hidden_size,
            max_position_embeddings=max_position_embeddings,
            pad_token_id=config.pad_token_id,
        )
    )
    weights = source.state_dict()
    converted = {theirs: weights[ours] for theirs, ours in _module_pairs(config.num_hidden_layers).items()}
    converted["embeddings.word_embeddings.weight"] = weights["embeddings.code_embeddings.weight"]
    types = target.embeddings.token_type_embeddings.weight
    converted["embeddings.token_type_embeddings.weight"] = torch.zeros_like(types)
    converted["encoder.embed_positions.weight"] = target.encoder.embed_positions.weight
    target.load_state_dict(converted)
    return target.eval()


@torch.no_grad()
def verify(first: RoFormerModel | AudioFormerModel, second: RoFormerModel | AudioFormerModel) -> float:
    """The largest difference of the two models' outputs on two clips of 300 random codes.

    Raises:
        ValueError: It is above 1e-5.
    """
    codebook_size = first.config.vocab_size - len(SPECIAL_TOKENS)
    codes = torch.randint(codebook_size, (2, 300), generator=torch.Generator().manual_seed(0))
    difference = largest_difference(first(codes).last_hidden_state, second(codes).last_hidden_state)
    return accept(difference, LARGEST_DIFFERENCE, "outputs differ")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("source", help="folder or Hub id to convert")
    parser.add_argument("target", help="folder to write")
    parser.add_argument("--to", choices=("audioformer", "roformer"), default="audioformer")
    arguments = parser.parse_args()
    source: RoFormerModel | AudioFormerModel
    target: RoFormerModel | AudioFormerModel
    if arguments.to == "audioformer":
        source = RoFormerModel.from_pretrained(arguments.source).eval()
        target = audioformer_from_roformer(source)
    else:
        source = AudioFormerModel.from_pretrained(arguments.source).eval()
        target = roformer_from_audioformer(source)
    if arguments.verify:
        print(f"largest difference of outputs: {verify(target, source):.1e}")
    target.save_pretrained(arguments.target)


if __name__ == "__main__":
    main()
