"""A causal codec's encoder as an ONNX network, for any number of clips and frames."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.audioformer.codec_audioformer import AudioCodec, _CausalLstm, _Elu

__all__ = ["can_export_codec", "export_codec", "save_lean", "shortest_samples"]

OPSET = 18


def can_export_codec(codec: AudioCodec) -> bool:
    """Whether the codec is a causal EnCodec, the one kind whose encoder is known to export."""
    return codec.is_causal


def shortest_samples(codec: AudioCodec) -> int:
    """The shortest clip, in samples, that the exported encoder takes: reflection mirrors the start of a clip."""
    encoder: Any = codec._adapter.causal_encoder
    return max(2, encoder.first_frames) * codec.hop_length


def export_codec(codec: AudioCodec, num_codebooks: int, path: Path) -> None:
    """Writes the network from `waveforms`, float32 (batch, samples), samples a multiple of `hop_length`, to `codes`,
    int64 (batch, num_codebooks, frames), of the first codebooks."""
    frames = torch.export.Dim("frames", min=shortest_samples(codec) // codec.hop_length)
    sound = torch.zeros(2, 2 * shortest_samples(codec))
    program = torch.export.export(
        _Encoder(codec, num_codebooks).eval(),
        (sound,),
        dynamic_shapes=({0: torch.export.Dim("batch"), 1: codec.hop_length * frames},),
    )
    exported: Any = torch.onnx.export(program, output_names=["codes"], opset_version=OPSET, verbose=False)
    save_lean(exported.model, path)


def save_lean(model: Any, path: Path) -> None:
    """Writes an `onnx_ir.Model` without what the exporter notes of the Python code behind each operator."""
    import onnx_ir

    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    onnx_ir.save(model, path)


class _Encoder(nn.Module):
    """The encoder of a codec, whole clips at a time, of operations that ONNX has."""

    def __init__(self, codec: AudioCodec, num_codebooks: int) -> None:
        super().__init__()
        self.encoder: Any = copy.deepcopy(codec._adapter.causal_encoder).cpu()  # type: ignore[union-attr]
        self.num_codebooks = num_codebooks
        for module in list(self.encoder.modules()):
            for name, child in module.named_children():
                if isinstance(child, _Elu):
                    setattr(module, name, _PlainElu())
                elif isinstance(child, _CausalLstm):
                    setattr(module, name, _OnnxLstm(child.lstm))

    def forward(self, waveforms: Tensor) -> Tensor:
        hidden = self.encoder.convolutions(waveforms[:, None], {})
        return self.encoder.quantizer(self.encoder.recurrent(hidden, {}).transpose(1, 2), self.num_codebooks)


class _PlainElu(nn.Module):
    def forward(self, hidden: Tensor, memory: dict) -> Tensor:
        return F.elu(hidden)


class _OnnxLstm(nn.Module):
    """`_CausalLstm` as ONNX's operator; torch would unroll it and so fix the length. Only an exported one computes."""

    def __init__(self, source: nn.LSTM) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = source.hidden_size, source.num_layers
        for layer in range(source.num_layers):
            weights = [_onnx_gates(getattr(source, f"weight_{kind}_l{layer}")) for kind in ("ih", "hh")]
            biases = [_onnx_gates(getattr(source, f"bias_{kind}_l{layer}")) for kind in ("ih", "hh")]
            for name, weight in zip("WRB", (*weights, torch.cat(biases)), strict=True):
                self.register_buffer(f"{name}{layer}", weight[None])

    def forward(self, hidden: Tensor, memory: dict) -> Tensor:
        steps = states = hidden.permute(2, 0, 1)
        frames, batch, _ = steps.shape
        for layer in range(self.num_layers):
            weights = [getattr(self, f"{name}{layer}") for name in "WRB"]
            output, _, _ = torch.onnx.ops.symbolic_multi_out(
                "LSTM",
                [states, *weights],
                attrs={"hidden_size": self.hidden_size},
                dtypes=(torch.float32,) * 3,
                shapes=([frames, 1, batch, self.hidden_size], *[[1, batch, self.hidden_size]] * 2),
                version=OPSET,
            )
            states = output.squeeze(1)
        return (states + steps).permute(1, 2, 0)


def _onnx_gates(weight: Tensor) -> Tensor:
    """The rows in ONNX's order of gates (input, output, forget, cell) in place of torch's."""
    input_gate, forget_gate, cell, output_gate = weight.detach().chunk(4)
    return torch.cat([input_gate, output_gate, forget_gate, cell])
