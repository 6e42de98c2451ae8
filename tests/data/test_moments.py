"""Onsets and offsets: read from tables, and as targets of a model's moments."""

import csv
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

from hf_audioformer import AudioFormerConfig, AudioFormerSignalFeatureExtractor, read_clips
from hf_audioformer.data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion
from hf_audioformer.data.collators import CodeCollator
from hf_audioformer.data.curves import Curves
from hf_audioformer.data.moments import (
    AlongTime,
    MomentCollator,
    MomentDataset,
    MomentGrid,
    Spans,
    add_spans,
    spans_of_clips,
)

ROWS = [
    ("3.wav", "0.1", "0.2", "low"),
    ("3.wav", "0.15", "0.22", " low "),
    ("4.wav", "0", "0.05", "high"),
    ("5.wav",) * 1,
    ("6.wav", "", "", " "),
]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with tabs, as DESED has them; clip 5 has a row without event."""
    file = tmp_path_factory.mktemp("events") / "strong.tsv"
    with file.open("w", newline="") as opened:
        rows = csv.writer(opened, delimiter="\t")
        rows.writerow(["filename", "onset", "offset", "event_label"])
        rows.writerows([*row, *[""] * (4 - len(row))] for row in ROWS)
    return file


@pytest.mark.unit
def test_a_table_of_events_gives_labels_and_spans(tone_csv: Path, events: Path) -> None:
    clips = read_clips(tone_csv.parent, events=events)
    assert (clips.label_names, clips.multi_label) == (("high", "low"), True)
    spans = dict(zip(clips.ids, spans_of_clips(clips), strict=True))
    assert spans["3.wav"] == [(1, 0.1, 0.22)]  # what overlaps is one event
    assert spans["4.wav"] == [(0, 0.0, 0.05)]
    assert spans["5.wav"] == spans["6.wav"] == []
    targets = dict(zip(clips.ids, clips.targets().tolist(), strict=True))
    assert (targets["3.wav"], targets["4.wav"], targets["5.wav"]) == ([0, 1], [1, 0], [0, 0])
    named = read_clips(tone_csv.parent, events=events, label_names=["low", "high"])
    assert spans_of_clips(named.select([named.ids.index("3.wav")])) == [[(0, 0.1, 0.22)]]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("nowhere.wav", "0", "1", "low"), r"line 2: no clip is called 'nowhere.wav'; there are '0.wav', "),
        (("3.wav", "0.2", "0.1", "low"), r"line 2: onset is '0.2' and offset '0.1'; expected seconds"),
        (("3.wav", "early", "1", "low"), "line 2: onset is 'early'"),
    ],
)
def test_bad_events_are_named(row: tuple[str, ...], message: str, tone_csv: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text(f"filename,onset,offset,event_label\n{','.join(row)}\n")
    with pytest.raises(ValueError, match=message):
        read_clips(tone_csv.parent, events=file)
    with pytest.raises(ValueError, match="the clips have labels without onsets and offsets; name a csv"):
        spans_of_clips(read_clips(tone_csv))
    file.write_text("file,label\n3.wav,low\n")
    with pytest.raises(ValueError, match="expected rows with the columns filename, onset, offset, event_label; found"):
        read_clips(tone_csv.parent, events=file)


@pytest.mark.fault
def test_a_name_that_several_clips_share_names_none_of_them() -> None:
    table = datasets.Dataset.from_dict({"id": ["a/1.wav", "b/1.wav", "b/2.wav"]})
    row = {"onset": "0", "offset": "1", "event_label": "dog"}
    with pytest.raises(ValueError, match=r"line 2: several clips are called '1.wav' in different folders; give the"):
        add_spans(table, [row | {"filename": "1.wav"}], "strong.csv")
    found = add_spans(table, [row | {"filename": name} for name in ("a/1.wav", "2.wav")], "strong.csv")
    assert found["labels"][:] == [["dog"], [], ["dog"]]


@pytest.mark.fault
def test_moments_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="along time is read from an AudioFormer alone, found Wav2Vec2Config"):
        MomentGrid.of(Wav2Vec2Config(), Wav2Vec2FeatureExtractor())


@pytest.mark.unit
def test_moments_lie_where_the_front_end_says() -> None:
    spectral = AudioFormerSignalFeatureExtractor(kind="log_mel", num_mel_bins=32)
    patches = AudioFormerConfig(front_end="patches", num_features=32, patch_size=[8, 8], patch_stride=[4, 8])
    assert MomentGrid.of(patches, spectral) == MomentGrid(0.04, stride=4, sampling_rate=16_000)
    frames = AudioFormerConfig(front_end="frames", num_features=32)
    assert MomentGrid.of(frames, spectral) == MomentGrid(0.01, sampling_rate=16_000)
    waveform = AudioFormerSignalFeatureExtractor(kind="waveform", sampling_rate=16_000)
    grid = MomentGrid.of(AudioFormerConfig(front_end="waveform"), waveform)
    assert (grid.seconds, grid.num_moments(321)) == (pytest.approx(0.02), 2)
    odd = AudioFormerSignalFeatureExtractor(kind="log_mel", num_mel_bins=32, sampling_rate=22_050)
    assert MomentGrid.of(frames, odd).seconds == 220 / 22_050  # whole samples from frame to frame


@pytest.mark.reference
def test_targets_are_what_is_heard_in_the_middle_of_each_moment() -> None:
    grid = MomentGrid(0.04, stride=4, boundaries=1)
    spans = [(0, 0.1, 0.26), (2, 0.0, 0.019), (2, 0.2, 9.0)]
    targets = grid.targets(Spans(spans, 3), length=45)  # 12 moments, of which 10 are sound
    assert targets.shape == (12, 3)
    assert (targets[[0, -1]] == -100).all()
    for moment in range(10):
        middle = (moment + 0.5) * 0.04
        heard = [any(label == span[0] and span[1] <= middle < span[2] for span in spans) for label in range(3)]
        assert targets[1 + moment].tolist() == heard


@pytest.mark.fault
@pytest.mark.parametrize(
    "truth", [Spans([(0, 400.0, 900.0)], 1), Curves(np.array([400.0]), np.ones((1, 1)), np.ones(1))]
)
def test_times_that_are_not_in_seconds_are_refused(truth: AlongTime) -> None:
    class Clips:
        names = ("a.wav",)
        lengths = (12,)

        def __getitem__(self, index: int) -> dict[str, object]:
            return {"input_ids": np.arange(12)}

    with pytest.raises(ValueError, match=r"'a.wav' lasts 1.20 s, and what is told of it goes on until 400; give times"):
        MomentDataset(Clips(), [truth], MomentGrid(0.1, boundaries=1))[0]
    cut = MomentDataset(Clips(), [truth], MomentGrid(0.1, boundaries=1, max_seconds=1.0))
    assert len(cut[0]["labels"]) == 12
    MomentGrid(0.1).check_times(Spans([(0, 2.9, 1e9)], 1), 1.0, "a.wav")


@pytest.mark.property
def test_a_stretch_has_the_targets_of_its_place_in_the_clip() -> None:
    """Of codes and of samples, with the whole clip's targets to compare with."""
    spans = Spans([(0, 0.31, 0.62), (1, 0.5, 5.0)], 2)
    grid = MomentGrid(0.02, boundaries=1)
    ids = np.concatenate(([64], np.arange(50), [65]))
    whole = MomentDataset(CodeDataset([[CodeVersion(ids)]], names=["a"]), [spans], grid)[0]["labels"]
    cut = CodeDataset([[CodeVersion(ids)]], augmentation=CodeAugmentation(64, crop_frames=12), names=["a"])
    starts = set()
    for epoch in range(20):
        cut.set_epoch(epoch)
        item = MomentDataset(cut, [spans], grid)[0]
        start = int(item["input_ids"][1])
        assert np.array_equal(item["labels"][1:-1], whole[1 + start : 13 + start])
        assert (item["labels"][[0, -1]] == -100).all()
        assert item.keys() == {"input_ids", "clip_index", "labels"}
        starts.add(start)
    assert len(starts) > 5

    class Samples:
        names = ("a",)
        lengths = (8000,)

        def __getitem__(self, index: int) -> dict[str, object]:
            return {"input_values": np.zeros(3200), "start": 2400, "clip_index": index}

    of_samples = MomentGrid(0.02, stride=160, sampling_rate=8000)
    assert np.array_equal(MomentDataset(Samples(), [spans], of_samples)[0]["labels"], whole[16:36])


@pytest.mark.unit
def test_batches_have_targets_of_moments_padded_as_outputs_are() -> None:
    class Clips:
        names = ("a", "b")
        lengths = (3, 4)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict[str, object]:
            return {"input_ids": np.arange(3 + index), "labels": np.ones(2), "clip_index": index}

    dataset = MomentDataset(Clips(), [Spans([(1, 0.0, 0.2)], 2), Spans([], 2)], MomentGrid(0.1))
    batch = MomentCollator(CodeCollator(99))([dataset[0], dataset[1]])
    assert batch["labels"].tolist() == [[[0, 1], [0, 1], [0, 0], [-100, -100]], [[0, 0]] * 4]
    assert batch["input_ids"].shape == (2, 4)
    (first, second) = MomentGrid(0.1).of_sound(torch.arange(16.0).view(2, 4, 2), batch)
    assert first.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert second.shape == (4, 2)
    assert MomentGrid(0.1, boundaries=1).of_sound(torch.arange(16.0).view(2, 4, 2), batch)[0].tolist() == [[2, 3]]
