"""Writes a trained AST in half precision, as the two that come with the package are.

    python -m conversion.halve_ast runs/ast_synthetic hf_audioformer/assets/ast_synthetic

SOURCE is a folder that `hf-audioformer finetune-ast` has left; TARGET gets its weights in float16, which are
loaded as float32, its configuration and its feature extractor.

Before anything is written, the logits of the rounded weights are compared with the source's on noise, both computed in
float32; the largest difference is printed, and above 0.01 nothing is written.
"""

import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from conversion.common import accept, command_line, largest_difference

LARGEST_DIFFERENCE = 0.01


@torch.no_grad()
def verify(halved: ASTForAudioClassification, original: ASTForAudioClassification) -> float:
    """The largest difference of the logits of noise.

    Raises:
        ValueError: It is above 0.01.
    """
    config, generator = original.config, torch.Generator().manual_seed(0)
    noise = torch.randn(8, config.max_length, config.num_mel_bins, generator=generator)
    difference = largest_difference(halved.float()(noise).logits, original(noise).logits)
    return accept(difference, LARGEST_DIFFERENCE, "logits differ from the source's")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("source", help="folder of an AST")
    parser.add_argument("target", help="folder to write")
    arguments = parser.parse_args()

    halved = ASTForAudioClassification.from_pretrained(arguments.source, dtype=torch.float16)
    if arguments.verify:
        original = ASTForAudioClassification.from_pretrained(arguments.source, dtype=torch.float32)
        print(f"largest difference of logits: {verify(halved, original):.1e}")
    halved.half().save_pretrained(arguments.target)
    # Transformers takes the precision in memory from here: that of training and of what feature extractors give.
    config = ASTConfig.from_pretrained(arguments.target)
    config.dtype = torch.float32
    config.save_pretrained(arguments.target)
    ASTFeatureExtractor.from_pretrained(arguments.source).save_pretrained(arguments.target)


if __name__ == "__main__":
    main()
