"""FT2 of the paper: a network that also learns, by MPC, what the other codebooks of a clip sound like."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import AudioFormerFeatureExtractor, AudioFormerModel
from ..codes.companions import load_companions, num_codebooks_read, pool_companions
from ..data.clip_companions import Versions, add_companion_codes, add_companion_vectors
from ..losses import Form, MultiPositiveContrastiveLoss, Similarity
from .console import quiet_transformers

__all__ = [
    "ContrastiveArguments",
    "ContrastiveObjective",
    "add_companions",
    "contrastive_objective",
    "read_companions",
    "with_codebooks_of",
]


@dataclass(frozen=True)
class ContrastiveArguments:
    """Contrastive learning beside a model's own loss, off without companions; a section of a recipe's YAML file.

    In fine-tuning it is the paper's FT2; in pretraining the paper has none.

    Raises:
        ValueError: `alpha` outside [0, 1], or a temperature that is not positive.
    """

    companions: list[str] = field(
        default_factory=list,
        metadata={
            "help": "folders or Hub ids of the networks of the other codebooks (the paper's C2 to C4), which stay "
            "frozen; none: no MPC (in fine-tuning: FT1)"
        },
    )
    companion_vectors: Literal["stored", "each_step"] = field(
        default="stored",
        metadata={"help": "compute their vectors once before training, or (slower, the same loss) in each step"},
    )
    alpha: float = field(
        default=0.8,
        metadata={"help": "loss = alpha * classification (or masked modelling) + (1 - alpha) * MPC, in [0, 1]"},
    )
    temperature: float = field(default=0.05, metadata={"help": "what similarities are divided by (the paper's tau)"})
    form: Form = field(default="supcon", metadata={"help": "formula of MPC, see hf_audioformer.losses"})
    similarity: Similarity = field(default="cosine", metadata={"help": "similarity of two vectors"})

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"mpc.alpha must lie in [0, 1], got {self.alpha}")
        if not self.temperature > 0:
            raise ValueError(f"mpc.temperature must be above 0, got {self.temperature}")


class ContrastiveObjective:
    """`alpha * the model's own loss + (1 - alpha) * MPC` of its `pooler_output`; an objective of `AudioTrainer`.

    Batches come from `CompanionCollator`, with `companions`, or with `companion_input_ids` for the `networks`.

    Args:
        alpha: Share of the classification loss, in [0, 1].
        loss: MPC.
        networks: From `load_companions`, run in each step; none where batches hold the vectors.
        own_name: What the model's own loss is called in the log.

    Source: arXiv 2308.07221, FT2.
    """

    def __init__(
        self,
        alpha: float,
        loss: MultiPositiveContrastiveLoss,
        networks: Sequence[AudioFormerModel] = (),
        own_name: str = "classification_loss",
    ):
        self.alpha = alpha
        self.loss = loss
        self.networks = networks
        self.own_name = own_name

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Any, dict[str, Tensor]]:
        """The loss of a batch, the model's outputs, and the two parts of the loss by name."""
        companions, is_present, clip_index, inputs = self._companions(batch)
        outputs = model(**inputs)
        contrast = self.loss(outputs.pooler_output, companions, is_present, clip_index)
        loss = self.alpha * outputs.loss + (1 - self.alpha) * contrast
        return loss, outputs, {self.own_name: outputs.loss, "mpc_loss": contrast}

    def _companions(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None, Tensor, dict[str, Any]]:
        """Vectors, which of them are there, the clips, and what is left for the model."""
        inputs = dict(batch)
        clip_index = inputs.pop("clip_index")
        if not self.networks:
            return inputs.pop("companions"), inputs.pop("is_present"), clip_index, inputs
        codes, mask = inputs.pop("companion_input_ids"), inputs.pop("companion_attention_mask")
        return pool_companions(self.networks, codes, mask), None, clip_index, inputs


def contrastive_objective(
    arguments: ContrastiveArguments, companions: Sequence[AudioFormerModel], own_name: str
) -> ContrastiveObjective | None:
    """What a model with companions is trained for, see `ContrastiveObjective`; without, None: its own loss is it."""
    if not companions:
        return None
    loss = MultiPositiveContrastiveLoss(
        temperature=arguments.temperature, form=arguments.form, similarity=arguments.similarity
    )
    run_each_step = companions if arguments.companion_vectors == "each_step" else ()
    return ContrastiveObjective(arguments.alpha, loss, run_each_step, own_name)


def read_companions(
    arguments: ContrastiveArguments, extractor: AudioFormerFeatureExtractor, hidden_size: int
) -> list[AudioFormerModel]:
    """The companions of a network of this width, none without any in the settings.

    Raises:
        ValueError: As `load_companions`.
    """
    with quiet_transformers():  # the heads are left out
        return load_companions(arguments.companions, codebook_size=extractor.codebook_size, hidden_size=hidden_size)


def with_codebooks_of(
    companions: Sequence[AudioFormerModel], extractor: AudioFormerFeatureExtractor
) -> AudioFormerFeatureExtractor:
    """An extractor that gives the codebooks that companions read as well; `extractor` itself where it does already."""
    needed = num_codebooks_read(companions) if companions else 0
    if needed <= extractor.num_codebooks:
        return extractor
    wider = copy.copy(extractor)
    wider.num_codebooks = needed
    with quiet_transformers():
        wider.load_codec()
    return wider


def add_companions(
    versions: Versions,
    clips: Sequence[int],
    companions: Sequence[AudioFormerModel],
    arguments: ContrastiveArguments,
    device: torch.device | None,
) -> Versions:
    """The versions, those of `clips` with what they are compared with: vectors, or codes to compute them from.

    Vectors that come from a code store are taken as they are.
    """
    if arguments.companion_vectors == "each_step":
        nn.ModuleList(companions).to(device)
        return add_companion_codes(versions, clips)
    first = next((versions[index][0] for index in clips if index in versions), None)
    if first is None or first.companions is not None:
        return versions
    return add_companion_vectors(versions, clips, companions, device=device)
