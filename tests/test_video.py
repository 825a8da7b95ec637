"""Models of clips: Latte's function and checkpoint layout, what mixes with what, joint images apart from the clip."""

import pytest
import torch

from models import catalogue, create_model, spec

TINY = [name for name in catalogue(video=True) if "-N/4" in name]
SMALL = {"frames": 4, "channels": 2, "downsample": 1, "num_classes": 10}


@pytest.mark.parametrize("name", catalogue(video=True))
def test_name_parses_back_to_itself(name):
    assert spec(name).name == name
    assert spec(name).frames == 16


@pytest.mark.parametrize("joint", [0, 3])
@pytest.mark.parametrize("name", TINY)
def test_every_arrangement_keeps_the_shape_of_a_clip_and_its_joint_images(name, joint):
    model = create_model(name, 16, **SMALL)
    x, y = torch.randn(2, 4 + joint, 2, 16, 16), torch.randint(0, 10, (2, 1 + joint))
    out = model(x, torch.tensor([3, 900]), y if joint else y[:, 0])
    assert out.shape == (2, 4 + joint, 4, 16, 16)
