"""The small ASTs that come with the package are stock checkpoints that have learnt what their cards say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import ASTForAudioClassification

from hf_audioformer import ASTLogMelFeatureExtractor, assets, read_clips
from hf_audioformer.data.clip_table import ClipTable

pytestmark = pytest.mark.unit


@torch.no_grad()
def logits_of(preset: str, clips: ClipTable, indices: list[int]) -> np.ndarray:
    model = ASTForAudioClassification.from_pretrained(assets.ast_folder(preset))
    assert tuple(model.config.id2label.values()) == tuple(clips.label_names)
    extractor = ASTLogMelFeatureExtractor.from_pretrained(assets.ast_folder(preset))
    features = [extractor(clip["array"], clip["sampling_rate"], "pt") for clip in map(clips.load, indices)]
    return np.concatenate([model(**of_clip).logits.numpy() for of_clip in features])


def test_size() -> None:
    for preset in assets.ASTS:
        assert sum(path.stat().st_size for path in Path(assets.ast_folder(preset)).iterdir()) < 3e6


def test_tells_what_synthetic_sounds_are_made_of() -> None:
    clips, indices = read_clips("synthetic"), list(range(0, 4000, 80))
    logits, targets = logits_of("ast_synthetic", clips, indices), clips.targets(indices)
    heard = (targets.sum(0) > 2) & (targets.sum(0) < len(targets) - 2)
    assert heard.sum() > 25
    assert roc_auc_score(targets[:, heard], logits[:, heard], average="macro") > 0.85


def test_tells_three_of_four_digits_of_people_whom_it_has_never_heard(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_AUDIOFORMER_DATA", str(data_folder))
    clips = read_clips("fsdd")
    indices = list(range(0, len(clips), 10))
    logits = logits_of("ast_spoken_digits", clips, indices)
    assert (logits.argmax(1) == clips.targets(indices)).mean() > 0.7


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no AST named 'ast_music' comes with the package; there are ast_synthetic"):
        assets.ast_folder("ast_music")
