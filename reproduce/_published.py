"""What papers and repositories print: protocols, and their numbers by model and method."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Protocol:
    """A protocol and the numbers printed for it."""

    title: str
    source: str  # where the numbers are printed
    definition: str  # of the number, in a sentence
    images: str  # of --images
    columns: Mapping[str, tuple[str, str]]  # header -> check, a column of its result ("": its values)
    printed: Mapping[str, Mapping[str, tuple[float | None, ...]]]  # model -> method -> a number for each column
    layers: Mapping[str, str] = field(default_factory=dict)  # model -> layer of the printed number
    rest: bool = False  # explains z^c + log p^c
    differs: str = ""  # what the command does otherwise

    @property
    def models(self) -> list[str]:
        """Names in timm, in the order of the table."""
        return list(self.printed)

    @property
    def methods(self) -> list[str]:
        """Each method once, in the order of the table."""
        return list(dict.fromkeys(m for printed in self.printed.values() for m in printed))


SHAPLEY_CAM = "github.com/caihuaiguang/pytorch-shapley-cam, commit ee02cce"
ALL = "50,000 images of ImageNet's validation set"
MAPS = "the maps here are resized before they are rescaled to [0, 1]; there it is the other way round."
ADCC = {
    "ADCC": ("adcc", ""),
    "drop": ("adcc", "drop"),
    "coherency": ("adcc", "coherency"),
    "complexity": ("adcc", "complexity"),
    "increase": ("average_drop", "increase"),
}
DROP = (
    "The image is multiplied by the map; the share of the class's probability that is lost, and the share of images "
    "where it rises, in per cent."
)
PROTOCOLS = {
    "adcc": Protocol(
        title="ADCC of the logit, at the last layer",
        source=f"Printed in {SHAPLEY_CAM}, output_avgpoolpre_presoftmax.txt: {ALL}",
        definition=(
            "The normalised image is multiplied by the map; ADCC is the harmonic mean of coherency, 1 - complexity and "
            "1 - drop, for the predicted class. Increase is in per cent (printed as a share)."
        ),
        images="IMAGENET_VAL",
        columns=ADCC,
        printed={
            "resnet50.tv_in1k": {
                "grad_cam": (0.7509, 0.4137, 0.9137, 0.1635, 15.67),
                "grad_cam_plus_plus": (0.7645, 0.3296, 0.8945, 0.2392, 20.15),
                "layer_cam": (0.7882, 0.3089, 0.9568, 0.2391, 21.36),
            },
            "vgg16.tv_in1k": {
                "grad_cam": (0.7790, 0.2275, 0.9008, 0.3085, 29.65),
                "grad_cam_plus_plus": (0.7886, 0.2269, 0.9623, 0.3205, 26.30),
                "layer_cam": (0.7937, 0.2290, 0.9619, 0.3069, 26.57),
            },
            "resnet18.tv_in1k": {
                "grad_cam": (0.7780, 0.3020, 0.9593, 0.2758, 23.72),
                "grad_cam_plus_plus": (0.7578, 0.3087, 0.9640, 0.3220, 22.06),
                "layer_cam": (0.7647, 0.3251, 0.9675, 0.2896, 20.95),
            },
            "resnet101.tv_in1k": {"grad_cam": (0.7955, 0.3092, 0.9284, 0.1977, 23.18)},
            "resnext50_32x4d.tv_in1k": {"grad_cam": (0.7929, 0.2916, 0.9230, 0.2240, 23.00)},
        },
        layers={
            "resnet50.tv_in1k": "layer4",
            "vgg16.tv_in1k": "features.30",
            "resnet18.tv_in1k": "layer4",
            "resnet101.tv_in1k": "layer4",
            "resnext50_32x4d.tv_in1k": "layer4",
        },
        differs=MAPS,
    ),
    "adcc_rest": Protocol(
        title="ADCC of z + log p, at the last convolution",
        source=f"Printed in {SHAPLEY_CAM}, gist_conv.txt: {ALL}",
        definition="As above; the maps explain z + log p of the class (ReST).",
        images="IMAGENET_VAL",
        columns=ADCC,
        printed={
            "resnet50.tv_in1k": {
                "shapley_cam": (0.7774, 0.1847, 0.9667, 0.3743, 33.47),
                "grad_cam": (0.7821, 0.1714, 0.9340, 0.3584, 36.18),
                "hires_cam": (0.7840, 0.1831, 0.9331, 0.3468, 34.73),
                "grad_cam_plus_plus": (0.7846, 0.2167, 0.9596, 0.3355, 30.95),
                "xgrad_cam": (0.6568, 0.4066, 0.6652, 0.2751, 18.25),
                "layer_cam": (0.7769, 0.1923, 0.9637, 0.3694, 32.72),
                "random_cam": (0.4797, 0.6771, 0.5254, 0.2026, 7.72),
            },
        },
        layers={"resnet50.tv_in1k": "layer4.2.conv3"},
        rest=True,
        differs=MAPS + " ShapleyCAM there is pytorch-grad-cam's form (see the file of the method).",
    ),
    "average_drop": Protocol(
        title="Average drop and increase on VGG-16",
        source=(
            "Printed in Wang et al., Score-CAM, CVPR Workshop 2020, arXiv:1910.01279, table 1: 2,000 images of "
            "ImageNet's validation set, drawn at random"
        ),
        definition=DROP,
        images="IMAGENET_VAL",
        columns={"drop %": ("average_drop", ""), "increase %": ("average_drop", "increase")},
        printed={
            "vgg16.tv_in1k": {
                "grad_cam": (47.8, 19.6),
                "grad_cam_plus_plus": (45.5, 18.9),
                "score_cam": (31.5, 30.6),
            }
        },
        layers={"vgg16.tv_in1k": "features.29"},
        differs=(
            "which 2,000 images is not printed; the command takes all that it is given. The normalised image is "
            "multiplied, so hidden pixels get the mean colour."
        ),
    ),
    "torchcam": Protocol(
        title="Average drop and increase on Imagenette",
        source="Printed in the README of github.com/frgfm/torch-cam: 3,925 images of Imagenette's validation set",
        definition=DROP,
        images="IMAGENETTE_VAL",
        columns={"drop %": ("average_drop", ""), "increase %": ("average_drop", "increase")},
        printed={
            "resnet18.tv_in1k": {
                "grad_cam": (26.86, 22.50),
                "grad_cam_plus_plus": (52.71, 19.62),
                "smooth_grad_cam_plus_plus": (20.88, 24.99),
                "layer_cam": (17.12, 28.19),
            },
            "mobilenetv3_large_100.ra_in1k": {
                "grad_cam": (26.78, 34.83),
                "grad_cam_plus_plus": (31.82, 25.35),
                "smooth_grad_cam_plus_plus": (26.81, 26.78),
                "layer_cam": (25.26, 28.82),
            },
        },
        layers={"resnet18.tv_in1k": "layer4"},
        differs=(
            "torchvision's weights of MobileNetV3 are not in timm, `ra_in1k` are other weights; "
            "SmoothGradCAM++ takes its "
            "defaults here, and 4 samples there."
        ),
    ),
}
