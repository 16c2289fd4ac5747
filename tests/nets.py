"""Small classifiers, one for each thing that breaks attribution code. Seeded, in evaluation mode, float64."""

from functools import partial

import timm
import torch
from torch import nn
from torch.nn import functional as F


class FunctionalReLU(nn.Module):
    def forward(self, x):
        return F.relu(x)


class TensorReLU_(nn.Module):  # noqa: N801
    def forward(self, x):
        x.relu_()  # the return value is not used
        return x


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of B C H W, as in ConvNeXt."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv = nn.Conv2d(n, n, 1)

    def forward(self, x):
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()


class Block(nn.Module):
    """Residual block as in timm's ResNet: the shortcut is added in place."""

    inplace = True

    def __init__(self, n_in, n, stride, act, norm, gate):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n, 3, stride, 1, bias=False)
        self.bn1, self.act1 = norm(n), act()
        self.conv2 = nn.Conv2d(n, n, 3, 1, 1, bias=False)
        self.bn2, self.gate, self.act2 = norm(n), gate(n), act()
        self.downsample = nn.Conv2d(n_in, n, 1, stride, bias=False) if stride != 1 or n_in != n else nn.Identity()

    def forward(self, x):
        shortcut = self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.gate(self.bn2(self.conv2(x)))
        if self.inplace:
            x += shortcut
        else:
            x = x + shortcut
        return self.act2(x)


class Tiny(nn.Module):
    """32 px -> 4 x 4 (layer4); `head_norm` puts a norm between pooling and classifier, as ConvNeXt has."""

    num_features = 16

    def __init__(self, act, norm=nn.BatchNorm2d, gate=lambda n: nn.Identity(), head_norm=False, classes=10):
        super().__init__()
        block = partial(Block, act=act, norm=norm, gate=gate)
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn1, self.act1 = norm(8), act()
        self.layer1, self.layer2 = block(8, 8, 1), block(8, 12, 2)
        self.layer3, self.layer4 = block(12, 12, 1), block(12, 16, 2)
        self.norm = nn.LayerNorm(16) if head_norm else nn.Identity()
        self.fc = nn.Linear(16, classes)

    def get_classifier(self):
        return self.fc

    def forward(self, x):
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.norm(x.mean((2, 3))))


def _vit(**kwargs):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 10}
    return timm.create_model("vit_tiny_patch16_224", **sizes | kwargs)


def _swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(2, 1),
        num_heads=(2, 2),
        num_classes=10,
    )


MAKE = {
    "relu": partial(Tiny, partial(nn.ReLU, inplace=True)),
    "relu_module": partial(Tiny, nn.ReLU),
    "relu_functional": partial(Tiny, FunctionalReLU),
    "relu_tensor": partial(Tiny, TensorReLU_),
    "relu6": partial(Tiny, partial(nn.ReLU6, inplace=True)),
    "elu": partial(Tiny, nn.ELU),
    "silu_se": partial(Tiny, partial(nn.SiLU, inplace=True), gate=SqueezeExcite),
    "gelu_ln": partial(Tiny, nn.GELU, norm=ChannelNorm, head_norm=True),
    "vit": _vit,
    "vit_avg": partial(_vit, global_pool="avg", class_token=True, reg_tokens=2),
    "swin": _swin,
}
KIND = {"vit": "vit", "vit_avg": "vit", "swin": "swin"}  # the rest are CNNs
RELU = {"relu", "relu_module", "relu_functional", "relu_tensor", "relu6"}
LINEAR_HEAD = RELU | {"elu", "silu_se", "swin"}


def net(name, seed=0, dtype=torch.float64):
    """A network of MAKE with parameters and statistics that leave nothing at zero or one."""
    torch.manual_seed(seed)
    model = MAKE[name]()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
        if isinstance(m, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.2)
        elif isinstance(m, nn.Linear) and KIND.get(name):  # timm starts with 0.02: too flat to see anything
            nn.init.normal_(m.weight, 0, m.in_features**-0.5)
    model.made_as = name
    return model.to(dtype).eval()


def applies(m, name):
    """Whether a method is meant for this network, by what it declares."""
    kind = KIND.get(name, "cnn")
    meets = {"": True, "relu": name in RELU, "linear head": name in LINEAR_HEAD, "rule": name in LINEAR_HEAD}
    return kind in m.architectures and meets[m.needs]
