"""What a clip meets in an epoch depends on seed, epoch, clip and occurrence alone."""

import pickle
from itertools import product

import numpy as np
import pytest

from hf_audioformer.draws import ClipDraw, generator_of


@pytest.mark.unit
def test_a_draw_is_the_index_and_remembers_its_occurrence_in_another_process() -> None:
    draw = ClipDraw(5, 2)
    assert draw == 5
    assert list("abcdefg")[draw] == "f"
    copied = pickle.loads(pickle.dumps(draw))
    assert (copied, copied.occurrence) == (5, 2)


@pytest.mark.invariant
def test_each_key_has_its_own_generator_and_a_plain_index_is_the_first_occurrence() -> None:
    keys = [*product(range(2), range(2), [ClipDraw(clip, again) for clip in range(2) for again in range(3)])]
    drawn = [generator_of(*key).random(4).tobytes() for key in keys]
    drawn += [generator_of(*key, 1).random(4).tobytes() for key in keys]
    assert len(set(drawn)) == 2 * len(keys) == 48
    np.testing.assert_array_equal(generator_of(3, 4, 5).random(4), generator_of(3, 4, ClipDraw(5)).random(4))
