"""The two tiny networks whose maps the authors' own code made; tests/golden/ has their weights, images and these maps.

`cnn()` and `vit()` give (network in evaluation mode, images, classes). The ResNet's grids for its 64 x 64 images: conv1
and relu 32, maxpool and layer1 16, layer2 8, layer3 and layer4 4. The ViT has 6 x 6 patches and one class token.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

FOLDER = Path(__file__).parent / "golden"


class Block(nn.Module):
    """Two convolutions and a shortcut; every module runs once, so that hooks at modules mean one tensor."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.relu, self.relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        project = nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
        self.downsample = nn.Sequential(*project) if stride != 1 or c_in != c_out else None

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu2(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's names, four stages of one block and a second block in the last."""

    num_features = 24

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = nn.Sequential(Block(8, 8, 1)), nn.Sequential(Block(8, 12, 2))
        self.layer3 = nn.Sequential(Block(12, 16, 2))
        self.layer4 = nn.Sequential(Block(16, 24, 1), Block(24, 24, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(24, 10)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _vit():
    return VisionTransformer(
        img_size=48, patch_size=8, embed_dim=24, depth=4, num_heads=3, mlp_ratio=2, num_classes=10, qkv_bias=True
    )


@functools.cache
def arrays(name):
    """name -> array of tests/golden/<name>.npz."""
    with np.load(FOLDER / f"{name}.npz") as data:
        return {k: data[k] for k in data.files}


def _load(network, name):
    found = {k: torch.as_tensor(v) for k, v in arrays(name).items()}
    weights = {k.removeprefix("w."): v for k, v in found.items() if k.startswith("w.")}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(k.endswith("num_batches_tracked") for k in missing)
    return network.eval(), found["x"], found["target"].long()


def cnn():
    return _load(ResNet(), "inputs")


def vit():
    return _load(_vit(), "vit_inputs")
