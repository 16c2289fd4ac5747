"""table_localization and imagenet: what the table says, and boxes of hand-made annotations checked by hand."""

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import _annotations
import _imagenet
import table_localization as table
from figure_numbers import numbers
from methods._models import Loaded, Preprocessing
from sanity_checks import CHECKS, _ground_truth
from sanity_checks._controls import CONTROLS
from sanity_checks._rows import Row
from sanity_checks._runner import Bench, Folder, Part, Unit, _compute, merge
from sanity_checks.wsol import max_box_acc, wsol

PREP = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=(224, 224), crop_pct=0.875, interpolation="bilinear")
CAT, CUP = "n02123159", "n07920052"  # tiger cat 282, espresso 967


# what the table says


@pytest.fixture(scope="module")
def cnn_and_vit():
    """(cells, cells): row -> column -> mean, low, high."""
    cnn, vit = numbers("table_localization")["tables"].values()
    return cnn["cells"], vit["cells"]


def test_the_order_of_methods_depends_on_the_score(cnn_and_vit):
    a, b = (cnn_and_vit[0][name] for name in ("integrated_gradients", "score_cam"))
    for score in ("pointing", "energy", "mass"):
        assert a[score]["low"] > b[score]["high"]
    for score in ("rank", "ROC-AUC", "AP", "IoU", "MaxBoxAccV2"):
        assert a[score]["high"] < b[score]["low"]


def test_the_image_itself_reaches_a_good_part_of_some_scores(cnn_and_vit):
    cnn, _ = cnn_and_vit
    scored = [cells for name, cells in cnn.items() if name not in CONTROLS and cells["AP"].get("n")]
    x = cnn["input_magnitude"]
    # most methods are class activation maps, whose blobs suit boxes: a quarter of all is below the image all the same
    assert sum(cells["MaxBoxAccV2"]["mean"] < x["MaxBoxAccV2"]["mean"] for cells in scored) > len(scored) / 4
    assert sum(cells["rank"]["mean"] < x["rank"]["mean"] for cells in scored) >= 3
    assert x["energy"]["high"] < sorted(cells["energy"]["mean"] for cells in scored)[len(scored) // 3]


def test_noise_is_at_chance_and_bold_only_by_chance(cnn_and_vit):
    area = next(iter(numbers("table_localization")["tables"].values()))["area"]
    for cells in cnn_and_vit:
        noise = cells["white_noise"]
        for score in ("pointing", "energy", "mass", "rank", "AP"):
            assert noise[score]["mean"] == pytest.approx(area, abs=0.01)
        assert noise["ROC-AUC"]["mean"] == pytest.approx(0.5, abs=0.01)
        sure = [cells[row][score]["gain"]["low"] > 0 for row in ("white_noise", "smooth_noise") for score in noise]
        assert sum(sure) <= 1  # of 16, with a chance of 1 in 40 each


def test_attention_beats_the_centre_by_every_score(cnn_and_vit):
    _, vit = cnn_and_vit
    for name in ("attention_rollout", "generic_attention"):
        for score, cell in vit[name].items():
            assert cell["low"] > vit["centred_gaussian"][score]["high"]


# annotations


def xml(*objects, size=(400, 300), name=CAT):
    """An annotation as ImageNet's are."""
    parts = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in objects
    )
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>val</folder>{head}<segmented>0</segmented>{parts}</annotation>".encode()


def picture(file, *objects, size=(400, 300)):
    """White boxes on black."""
    a = np.zeros((size[1], size[0], 3), np.uint8)
    for x0, y0, x1, y1 in objects:
        a[y0 : y1 + 1, x0 : x1 + 1] = 255
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(a).save(file, format="JPEG", quality=95)


@pytest.fixture
def place(tmp_path):
    """Two images of a cat and a cup, flat, with their annotations: (images, boxes)."""
    boxes = tmp_path / "boxes" / "val"
    boxes.mkdir(parents=True)
    for k, (name, *objects) in enumerate([(CAT, (100, 60, 199, 149)), (CUP, (0, 0, 39, 29), (300, 200, 399, 299))]):
        stem = f"ILSVRC2012_val_{k + 1:08}"
        picture(tmp_path / "images" / f"{stem}.JPEG", *objects)
        (boxes / f"{stem}.xml").write_bytes(xml(*objects, name=name))
    return str(tmp_path / "images"), str(tmp_path / "boxes")


def test_boxes_are_read_from_a_folder_and_from_the_archive(place, tmp_path):
    items, left_out, cut = _annotations.find(*place)
    assert [(i.synset, i.boxes) for i in items] == [
        (CAT, ((100, 60, 199, 149),)),
        (CUP, ((0, 0, 39, 29), (300, 200, 399, 299))),
    ]
    assert (left_out, cut) == ({}, 0)
    with tarfile.open(tmp_path / "boxes.tgz", "w:gz") as archive:
        archive.add(place[1], "bbox")
    assert _annotations.find(place[0], str(tmp_path / "boxes.tgz"))[0] == items


def test_folders_of_classes_are_read_and_must_agree_with_the_annotation(place, tmp_path):
    for k, synset in ((1, CAT), (2, CAT)):  # the second is a cup
        file = tmp_path / "images" / f"ILSVRC2012_val_{k:08}.JPEG"
        (tmp_path / "images" / synset).mkdir(exist_ok=True)
        file.rename(tmp_path / "images" / synset / file.name)
    items, left_out, _ = _annotations.find(*place)
    assert [i.file.parent.name for i in items] == [CAT]
    assert left_out == {"ILSVRC2012_val_00000002.JPEG": f"the annotation says {CUP}, the folder {CAT}"}


def test_limit_takes_images_spread_over_the_names(tmp_path):
    for k in range(7):
        picture(tmp_path / "images" / f"{k}.JPEG", size=(8, 8))
        (tmp_path / f"{k}.xml").write_bytes(xml((1, 1, 2, 2), size=(8, 8)))
    items, *_ = _annotations.find(str(tmp_path / "images"), str(tmp_path), limit=3)
    assert [i.file.stem for i in items] == ["0", "2", "4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"<annotation>", "not XML"),
        (b"<annotation><size><width>8</width></size></annotation>", "None for size/height"),
        (xml(), "no object"),
        (xml((1, 1, 2, "x")), "'x' for bndbox/ymax"),
        (xml((5, 1, 4, 2)), "empty box"),
        (xml((400, 1, 410, 2)), "outside the image"),
        (xml((1, 1, 2, 2), name="cat"), "'cat'"),
    ],
)
def test_a_bad_annotation_says_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        _annotations.parse(text)


def test_a_box_beyond_the_image_is_cut_and_counted():
    end = _annotations.parse(xml((390, 0, 400, 300)))  # ends at width and height, as some of the official ones
    assert (end.objects[0][1], end.cut) == ((390, 0, 399, 299), 0)
    beyond = _annotations.parse(xml((-3, 10, 20, 301), (1, 1, 2, 2)))
    assert (beyond.objects[0][1], beyond.cut) == ((0, 10, 20, 299), 1)


def test_what_cannot_be_used_is_left_out_with_its_reason(place, tmp_path):
    folder = tmp_path / "images"
    (folder / "no_image.JPEG").write_text("text")
    (tmp_path / "boxes" / "no_image.xml").write_bytes(xml((1, 1, 2, 2)))
    picture(folder / "no_box.JPEG")
    picture(folder / "other_size.JPEG", size=(300, 400))
    (tmp_path / "boxes" / "other_size.xml").write_bytes(xml((1, 1, 2, 2)))
    items, left_out, _ = _annotations.find(*place)
    assert left_out == {"no_box.JPEG": "there is no annotation no_box.xml"}
    good, bad = _imagenet.readable(items)
    assert len(good) == 2
    assert bad["other_size.JPEG"] == "the image has 300 x 400 pixels, the annotation says 400 x 300"
    assert "cannot read no_image.JPEG" in bad["no_image.JPEG"]


@pytest.mark.parametrize(
    ("images", "boxes", "message"),
    [
        ("nowhere", "boxes", "--images: there is no folder"),
        ("boxes", "boxes", "has no image"),
        ("images", "nowhere", "--boxes: there is no folder or archive"),
        ("images", "images", r"has no \.xml file"),
        ("images", "images/ILSVRC2012_val_00000001.JPEG", "cannot be read as an archive"),
        ("images", "other", "none of 2 images has a valid annotation; the first, ILSVRC2012_val_00000001.JPEG"),
    ],
)
def test_a_wrong_place_is_an_error(place, tmp_path, images, boxes, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "another.xml").write_bytes(xml((1, 1, 2, 2)))
    with pytest.raises(ValueError, match=message):
        _annotations.find(str(tmp_path / images), str(tmp_path / boxes))


# boxes in the model's input


def test_boxes_of_the_whole_image():
    """400 x 300 -> 224 x 224: scales 0.56 and 0.7467."""
    found = _imagenet.frame((400, 300), [(100, 60, 199, 149), (0, 0, 399, 299)], PREP)
    np.testing.assert_array_equal(found, [[56, 44, 111, 111], [0, 0, 223, 223]])


def test_boxes_of_the_centre():
    """400 x 300 -> 341 x 256, from which 58 and 16 pixels are cut: a box in the corner is gone, one is clipped."""
    found = _imagenet.frame((400, 300), [(100, 60, 199, 149), (0, 0, 39, 29), (300, 200, 399, 299)], PREP, crop=True)
    np.testing.assert_array_equal(found, [[27, 35, 111, 111], [197, 154, 223, 223]])


@pytest.mark.parametrize("crop", [False, True])
def test_boxes_lie_where_the_object_is_in_the_input(place, crop):
    items, *_ = _annotations.find(*place)
    for item in items:
        white = _imagenet.picture(item, PREP, crop=crop)[..., 0] > 127
        mask = _imagenet.covered(_imagenet.frame(item.size, item.boxes, PREP, crop=crop), PREP.size)
        assert white.sum() > 500
        inside, around = (_ground_truth.dilated(torch.from_numpy(m), 1).numpy() for m in (~mask, mask))
        assert not (white & ~around).any()  # to a pixel
        assert not (~white & ~inside).any()


def test_the_bench_gives_each_image_its_class_and_boxes(place):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    model.num_classes = 1000  # as timm's models say it
    loaded = Loaded(model, "m", PREP, "0" * 64, "", "", ("",) * 1000, torch.device("cpu"))
    good, _ = _imagenet.readable(_annotations.find(*place)[0])
    bench = _imagenet.bench(loaded, good, 8)
    both, second = bench.load(0, 2), bench.load(1, 2)
    assert both["target"].tolist() == [282, 967]
    assert second["boxes"][0].tolist() == [[0, 0, 21, 21], [168, 149, 223, 223]]
    assert torch.equal(second["x"][0], both["x"][1])
    assert second["mask"][0].sum() == 22 * 22 + 56 * 75
    assert bench.stamp != _imagenet.bench(loaded, good, 8, crop=True).stamp
    model.num_classes = 10
    with pytest.raises(ValueError, match="none of timm's ImageNet lists"):
        _imagenet.bench(loaded, good, 8)


# the score that belongs to all images


def test_max_box_acc_of_shards_is_that_of_all_images():
    rng = torch.Generator().manual_seed(0)
    maps, mask = torch.rand(9, 1, 12, 12, generator=rng), torch.zeros(9, 12, 12, dtype=torch.bool)
    mask[:8, 3:9, 2:8] = True  # the last has no object
    maps[:4, :, 3:9, 2:8] += 1
    keywords = {"interval": 0.05, "size": 12}
    parts = [Part(wsol(maps[s], mask[s], **keywords), wsol(maps[s].flip(2), mask[s], **keywords))
             for s in (slice(0, 4), slice(4, 9))]  # fmt: skip
    cell = table.of_all(merge(parts))
    whole, noise = (max_box_acc(wsol(m, mask, **keywords).curves)["MaxBoxAccV2"] for m in (maps, maps.flip(2)))
    each = [max_box_acc(p.result.curves)["MaxBoxAccV2"] for p in parts]
    assert whole != pytest.approx((4 * each[0] + 4 * each[1]) / 8)  # so a mean over shards is not it
    assert cell["mean"] == pytest.approx(whole)
    assert (cell["n"], cell["missing"]) == (8, 1)
    assert cell["gain"]["mean"] == pytest.approx(whole - noise)
    assert cell["low"] < cell["mean"] < cell["high"]


def test_boxes_of_the_bench_reach_the_check():
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    boxes = torch.tensor([[0, 0, 3, 3], [7, 7, 11, 11]])
    for x0, y0, x1, y1 in boxes:
        mask[0, y0 : y1 + 1, x0 : x1 + 1] = True
    x = torch.zeros(1, 3, 12, 12)
    bench = Bench(name="b", note="", model=nn.Identity(), names=["0"], read=slice, prepare=lambda _: {}, stamp="")
    row = Row(key="mask", label="mask", fn=lambda seed: lambda model, x, target: mask[:, None].float(), control=True)
    unit = Unit(row=row, check=CHECKS["wsol"], bench=bench, shard=(0, 1), params={"size": 12, "interval": 0.1})
    shared = {"x": x, "target": torch.tensor([0]), "mask": mask}
    one, two = (
        _compute(unit, shared | more, Folder(path=Path(), seed=0, draws=1)).result for more in ({}, {"boxes": [boxes]})
    )
    assert float(two.values) == 1
    assert float(one.values) < 1  # a box around both


def test_the_table_of_images_with_boxes(place, tmp_path, monkeypatch, capsys):
    images, boxes = place
    words = f"--images {images} --boxes {boxes} --model mobilenetv3_small_050 --weights random --quick --out {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["table_localization.py", *words.split(), "--methods", "grad_cam"])
    table.main()
    facts = json.loads((tmp_path / "table_localization.json").read_text())
    (found,) = facts["numbers"]["tables"].values()
    assert found["n"] == 2
    assert found["cells"]["grad_cam"]["MaxBoxAccV2"]["n"] == 2
    assert set(found["cells"]) == {"grad_cam", *CONTROLS}
    area = (56 * 68 + 22 * 22 + 56 * 75) / 2 / 224**2
    assert found["area"] == pytest.approx(area, rel=1e-3)
    assert "resized as a whole" in facts["caption"]
    assert "RANDOM WEIGHTS" in facts["caption"]
    text = (tmp_path / "table_localization.md").read_text()
    assert "| MaxBoxAccV2 ↑ |" in text
    assert str(tmp_path) not in json.dumps(facts)


def test_images_without_boxes_are_refused(monkeypatch, place):
    monkeypatch.setattr(sys, "argv", ["table_localization.py", "--images", place[0], "--quick"])
    with pytest.raises(SystemExit, match="belong together"):
        table.main()
