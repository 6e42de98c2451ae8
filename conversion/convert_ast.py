"""Converts official AST weights (`.pth`) to a stock Transformers checkpoint with its feature extractor.

    python -m conversion.convert_ast audioset_10_10_0.4593.pth TARGET --labels class_labels_indices.csv

SOURCE is a file of the AST repository, https://github.com/YuanGongND/ast, whose README links to the weights: AudioSet
(527 classes; strides of 10, 12, 14 or 16) and Speech Commands (35); or one that its training script saved. Its code is
under the BSD 3-Clause licence. `class_labels_indices.csv` lies in its folders egs/audioset/data and
egs/speechcommands/data.

Strides and length follow from the number of positions where they are the official ones; give them otherwise. Before
anything is written the logits are compared with the official network's, rewritten here, and the largest difference is
printed. (The official head has a norm with an epsilon of 1e-5; the stock AST has one epsilon, here timm's 1e-6.) The
file is read with `weights_only=True`: one that holds anything but tensors is refused.
"""

import csv
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from conversion.common import accept, command_line, largest_difference, read_tensors
from hf_audioformer.models.ast.positions_ast import patch_grid

PATCH = 16
HEAD_SIZE = 64  # channels of an attention head in every DeiT
BODY = "audio_spectrogram_transformer."
LARGEST_DIFFERENCE = 1e-4
OFFICIAL_SHAPES = [(stride, length) for length in (1024, 512, 128) for stride in (10, 12, 14, 16)]
# Mean and standard deviation of the log-mel features by the number of classes: AudioSet, ESC-50, Speech Commands.
STATISTICS = {527: (-4.2677393, 4.5689974), 50: (-6.6268077, 5.358466), 35: (-6.845978, 5.5654526)}
# Official names and Transformers', outside the layers and within one.
MODULES = {
    "v.cls_token": BODY + "embeddings.cls_token",
    "v.dist_token": BODY + "embeddings.distillation_token",
    "v.pos_embed": BODY + "embeddings.position_embeddings",
    "v.patch_embed.proj": BODY + "embeddings.patch_embeddings.projection",
    "v.norm": BODY + "layernorm",
    "mlp_head.0": "classifier.layernorm",
    "mlp_head.1": "classifier.dense",
}
LAYER_MODULES = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
UNUSED = ("v.head.", "v.head_dist.")  # DeiT's heads for images, which the official AST carries along


def read_official_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of an official file by name, without the prefix of `DataParallel` and the unused heads.

    Raises:
        ValueError: The file holds anything but tensors by name, or is damaged; nothing in it is executed.
        FileNotFoundError: There is no such file.
    """
    return {name: weight for name, weight in read_tensors(path).items() if not name.startswith(UNUSED)}


def ast_config(
    weights: dict[str, Tensor], strides: tuple[int, int] | None = None, max_length: int | None = None
) -> ASTConfig:
    """The configuration that official weights fit.

    `strides` (frequency, time) and `max_length` (frames) are found by the number of positions where they are official.

    Raises:
        ValueError: Not an AST's weights, or the number of positions fits no official shape, or not the given one.
    """
    if "v.pos_embed" not in weights or "mlp_head.1.weight" not in weights:
        raise ValueError(f"v.pos_embed and mlp_head.1.weight are wanted, found {sorted(weights)[:5]}: no official AST.")
    hidden_size = weights["v.pos_embed"].shape[2]
    num_positions = weights["v.pos_embed"].shape[1] - 2
    if (strides is None) != (max_length is None):
        raise ValueError(f"strides={strides} and max_length={max_length}: give both or none.")
    shapes = [((stride, stride), length) for stride, length in OFFICIAL_SHAPES]
    for (frequency_stride, time_stride), length in [(strides, max_length)] if strides and max_length else shapes:
        config = ASTConfig(
            hidden_size=hidden_size,
            num_hidden_layers=len([name for name in weights if name.endswith(".attn.qkv.weight")]),
            num_attention_heads=hidden_size // HEAD_SIZE,
            intermediate_size=weights["v.blocks.0.mlp.fc1.weight"].shape[0],
            layer_norm_eps=1e-6,  # timm's; the official head alone has 1e-5
            patch_size=PATCH,
            frequency_stride=frequency_stride,
            time_stride=time_stride,
            max_length=length,
            num_labels=len(weights["mlp_head.1.bias"]),
        )
        frequency, time = patch_grid(config)
        if frequency * time == num_positions:
            return config
    raise ValueError(
        f"{num_positions} positions do not fit strides={strides or '10, 12, 14 or 16'} with max_length="
        f"{max_length or '1024, 512 or 128'} and 128 mel bands. Give the strides and the length of the training."
    )


def ast_from_official(weights: dict[str, Tensor], config: ASTConfig) -> ASTForAudioClassification:
    """A stock AST with official weights.

    Raises:
        ValueError: Weights are missing, unknown, or of another shape.
    """
    model = ASTForAudioClassification(config)
    try:
        model.load_state_dict(_renamed(weights))
    except RuntimeError as error:
        raise ValueError(f"weights of another network: {error}") from error
    return model.eval()


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, weight in weights.items():
        if name.startswith("v.blocks."):
            layer, module = name.removeprefix("v.blocks.").split(".", 1)
            renamed |= {f"{BODY}layers.{layer}.{new}": part for new, part in _renamed_in_layer(module, weight).items()}
        elif name in MODULES:
            renamed[MODULES[name]] = weight
        else:
            module, kind = name.rsplit(".", 1)
            renamed[f"{MODULES.get(module, module)}.{kind}"] = weight
    return renamed


def _renamed_in_layer(name: str, weight: Tensor) -> dict[str, Tensor]:
    module, kind = name.rsplit(".", 1)
    if module == "attn.qkv":
        return {f"attention.{part}_proj.{kind}": rows for part, rows in zip("qkv", weight.chunk(3), strict=True)}
    return {f"{LAYER_MODULES.get(module, module)}.{kind}": weight}


def official_logits(weights: dict[str, Tensor], config: ASTConfig, features: Tensor) -> Tensor:
    """Logits (batch, classes) of the official network on features (batch, frames, mel bands)."""

    def norm(x: Tensor, name: str, eps: float = 1e-6) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def attention(x: Tensor, name: str) -> Tensor:
        q, k, v = linear(x, f"{name}.qkv").unflatten(2, (3, -1, HEAD_SIZE)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3) * HEAD_SIZE**-0.5).softmax(dim=-1)
        return linear((scores @ v).transpose(1, 2).flatten(2), f"{name}.proj")

    kernel, bias = weights["v.patch_embed.proj.weight"], weights["v.patch_embed.proj.bias"]
    strides = (config.frequency_stride, config.time_stride)
    patches = F.conv2d(features[:, None].transpose(2, 3), kernel, bias, strides).flatten(2).transpose(1, 2)
    tokens = torch.cat([weights["v.cls_token"], weights["v.dist_token"]], dim=1).expand(len(features), -1, -1)
    x = torch.cat([tokens, patches], dim=1) + weights["v.pos_embed"]
    for layer in range(config.num_hidden_layers):
        block = f"v.blocks.{layer}"
        x = x + attention(norm(x, f"{block}.norm1"), f"{block}.attn")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    x = norm(x, "v.norm")
    return linear(norm((x[:, 0] + x[:, 1]) / 2, "mlp_head.0", eps=1e-5), "mlp_head.1")


@torch.no_grad()
def verify(model: ASTForAudioClassification, weights: dict[str, Tensor]) -> float:
    """The largest difference of the model's and the official network's logits on random features.

    Raises:
        ValueError: It is above 1e-4.
    """
    config = model.config
    shape = (2, config.max_length, config.num_mel_bins)
    features = 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    difference = largest_difference(model(features).logits, official_logits(weights, config, features))
    return accept(difference, LARGEST_DIFFERENCE, "logits differ from the official network's")


def read_label_names(path: str | Path, num_labels: int) -> list[str]:
    """The column `display_name` of an official `class_labels_indices.csv`.

    Raises:
        ValueError: Another number of classes than the head has.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    if len(names) != num_labels:
        raise ValueError(f"{path}: {len(names)} classes, but the head has {num_labels}.")
    return names


def feature_extractor(config: ASTConfig, mean: float | None, std: float | None) -> ASTFeatureExtractor:
    """The extractor that an official AST was trained with.

    Raises:
        ValueError: No statistics are known for this number of classes, and none are given.
    """
    known_mean, known_std = STATISTICS.get(config.num_labels, (None, None))
    mean, std = (known_mean if mean is None else mean), (known_std if std is None else std)
    if mean is None or std is None:
        raise ValueError(
            f"no statistics are known for {config.num_labels} classes, only for {sorted(STATISTICS)}: give --mean and "
            "--std of the training."
        )
    return ASTFeatureExtractor(max_length=config.max_length, num_mel_bins=config.num_mel_bins, mean=mean, std=std)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("source", help="official .pth file to convert")
    parser.add_argument("target", help="folder to write")
    parser.add_argument("--labels", help="class_labels_indices.csv with the classes' names")
    parser.add_argument("--strides", type=int, nargs=2, metavar=("FREQUENCY", "TIME"), help="of the patches")
    parser.add_argument("--max-length", type=int, help="frames that the model reads")
    parser.add_argument("--mean", type=float, help="of the training features (default: by the number of classes)")
    parser.add_argument("--std", type=float, help="of the training features, not doubled")
    arguments = parser.parse_args()

    weights = read_official_weights(arguments.source)
    config = ast_config(weights, arguments.strides and tuple(arguments.strides), arguments.max_length)
    if arguments.labels:
        config.id2label = dict(enumerate(read_label_names(arguments.labels, config.num_labels)))
        config.label2id = {name: row for row, name in config.id2label.items()}
    if config.num_labels == 527:  # AudioSet's, the one of several labels to a clip
        config.problem_type = "multi_label_classification"
    extractor = feature_extractor(config, arguments.mean, arguments.std)
    model = ast_from_official(weights, config)
    if arguments.verify:
        print(f"largest difference of logits: {verify(model, weights):.1e}")
    model.save_pretrained(arguments.target)
    extractor.save_pretrained(arguments.target)


if __name__ == "__main__":
    main()
