"""The device that a model runs on is one that is there."""

import pytest
import torch

from hf_audioformer.inference.loading import choose_device


@pytest.mark.unit
def test_the_accelerator_is_taken_where_there_is_one() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert (choose_device(None).type == "cpu") is not torch.accelerator.is_available()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device is gpu; allowed are cpu, cuda, cuda:1, mps"),
        ("xpu:99", "device is xpu:99, which PyTorch does not find here; there is cpu"),
        ("cpu:1", "device is cpu:1, which PyTorch does not find here"),
    ],
)
def test_devices_that_are_not_there_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_device(name)
