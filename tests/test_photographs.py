"""From a photograph to a picture of its map; and the list of methods on the command line."""

import numpy as np
import pytest
import torch
from PIL import Image

import methods
from methods import METHODS, __main__
from methods._cost import Formula, Passes


@pytest.fixture(scope="module")
def net():
    return methods.load_model("tf_efficientnet_lite0")


def test_from_a_photograph_to_a_picture(net):
    x, rgb = methods.load_image("chelsea", net)
    assert x.shape == (1, 3, *rgb.shape[:2])
    assert "cat" in net.classes[int(net.model(x).argmax())]
    a = methods.attribute("grad_cam", net.model, x, resize=False)
    picture = np.asarray(methods.overlay(rgb, a[0]))
    assert picture.shape == rgb.shape
    red = picture[..., 0].astype(int) - picture[..., 2]
    assert np.corrcoef(red.ravel(), methods._front_door.upsample(a, x)[0, 0].flatten())[0, 1] > 0.8
    signed = methods.attribute("gradient", net.model, x)[0]  # 3 H W: summed over channels, on white
    assert np.asarray(methods.overlay(rgb, signed)).mean() > 200


def test_a_file_is_read_like_a_packaged_photograph(net, tmp_path):
    Image.fromarray(np.full((300, 400, 3), 128, dtype=np.uint8)).save(tmp_path / "grey.png")
    x, rgb = methods.load_image(str(tmp_path / "grey.png"), net)
    assert (rgb == 128).all()
    assert torch.allclose(x, x[0, 0, 0, 0].expand_as(x), atol=1e-6)


@pytest.mark.parametrize("image", ["chelsea,coffee", "folder", "no_such_photograph"])
def test_what_is_not_one_photograph_is_refused(net, tmp_path, image):
    with pytest.raises(ValueError, match="^images?: "):
        methods.load_image(str(tmp_path) if image == "folder" else image, net)


def test_overlay_wants_one_map():
    with pytest.raises(ValueError, match=r"^a: must be one map K h w, such as a\[0\]"):
        methods.overlay(np.zeros((8, 8, 3), dtype=np.uint8), torch.zeros(1, 1, 8, 8))


def test_the_list_has_every_method_in_order(capsys):
    assert __main__.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == list(METHODS)
    order = [m.order for m in METHODS.values()]
    assert order == sorted(order)


def test_passes_are_data():
    p = Passes(Formula("1 + K", lambda s: 1 + s.K), before=1)
    assert p.words == "1 + K (1)"
    assert p.count({"K": 5}) == (6, 1)
    assert p.count({"K": 5}).tail == 5
    assert Passes("steps").count({"steps": 7}) == (7, 7)
    assert Passes(0).words == "0"
