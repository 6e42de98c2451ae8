"""The versions of a table's clips as codes."""

from pathlib import Path
from typing import Any

import pytest

from hf_audioformer import read_clips
from hf_audioformer.audio.augment import AudioAugmentation
from hf_audioformer.data.clip_codes import codes_of_clips


@pytest.mark.unit
def test_only_the_named_clips_get_changed_copies(tone_folder: Path, tiny_extractor: Any) -> None:
    clips = read_clips(str(tone_folder))
    augmentation = AudioAugmentation(copies=2)
    versions = codes_of_clips(clips, tiny_extractor, changed=[0, 5], augmentation=augmentation)
    assert {index: len(found) for index, found in versions.items()} == {i: 3 if i in (0, 5) else 1 for i in range(24)}
    assert len({version.input_ids.tobytes() for version in versions[5]}) == 3
    (again,) = codes_of_clips(clips.select([5]), tiny_extractor).values()
    assert (again[0].input_ids == versions[5][0].input_ids).all()
