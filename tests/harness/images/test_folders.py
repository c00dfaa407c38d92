"""Images in folders: who belongs to which part, what a network sees of a file, and damaged files."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.images import folders
from deepnets_bench.harness.images.augmentation import jitter, random_part
from deepnets_bench.harness.images.loading import fingerprint, load_images
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.randomness import Streams
from tests.harness.images.image_files import write_class, write_parts

OWN = load_track("imagefolder").images.model_copy(update={"batch_size": 4})
IMAGENET = load_track("imagenet").images
RUN = Streams((5,))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_parts(folder, {"train": 6, "val": 3, "test": 4})
    return folder


def names(part) -> list[str]:
    return ["/".join(path.split("/")[-3:]) for path in part.paths]


def test_parts_are_folders_and_classes_are_their_folders(root):
    images = load_images(OWN, root)
    assert images.num_classes == 3
    assert (len(images.train), len(images.val), len(images.test)) == (18, 9, 12)
    assert all(name.startswith("val/class") for name in names(images.val))
    assert [int(name[9]) for name in names(images.val)] == images.val.labels.tolist()
    assert images.val.labels.tolist() != sorted(images.val.labels.tolist())  # no batch of one class
    assert names(images.val) == names(load_images(OWN, root).val)


def test_images_without_parts_get_a_fixed_stratified_partition(tmp_path):
    for label in range(2):
        write_class(tmp_path / f"kind{label}", 10, (50, 60, 70))
    images = load_images(OWN, tmp_path)
    parts = [images.train, images.val, images.test]
    assert [torch.bincount(part.labels).tolist() for part in parts] == [[6, 6], [2, 2], [2, 2]]
    assert len({path for part in parts for path in part.paths}) == 20
    again = load_images(OWN, tmp_path)
    assert [part.paths for part in parts] == [part.paths for part in (again.train, again.val, again.test)]


def test_imagenet_the_last_50_of_each_class_validate_and_the_validation_images_test(tmp_path):
    for label in range(2):
        write_class(tmp_path / "train" / f"n{label}", 52, (50, 60, 70), size=(2, 2))
        write_class(tmp_path / "val" / f"n{label}", 3, (50, 60, 70), size=(2, 2))
    images = load_images(IMAGENET, tmp_path)
    kept = [f"train/n{label}/{file}" for label in range(2) for file in ("000.png", "001.jpg")]
    assert names(images.train) == kept
    assert torch.bincount(images.val.labels).tolist() == [50, 50]
    assert all("/train/" in path for path in images.val.paths)
    assert all("/val/" in path for path in images.test.paths)
    write_class(tmp_path / "train" / "n2", 50, (1, 2, 3), size=(2, 2))
    write_class(tmp_path / "val" / "n2", 1, (1, 2, 3), size=(2, 2))
    with pytest.raises(BadInput, match="n2 has 50 images; ImageNet's validation images are the last 50"):
        load_images(IMAGENET, tmp_path)


def test_evaluation_resizes_to_256_224ths_and_crops_the_centre(tmp_path):
    # Columns left of 64 are black, the others white; the shorter side, 64, becomes 73.
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 64:] = 255
    pixels = folders.central_pixels(Image.fromarray(picture), 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == torch.uint8
    assert int(pixels[:, :, :31].max()) == 0
    assert int(pixels[:, :, 33:].min()) == 255


def test_batches_are_normalised_pixels_in_order_and_the_same_when_kept(root):
    part = load_images(OWN, root).test
    first = list(part.batches(5))
    assert [len(labels) for _, labels in first] == [5, 5, 2]
    row = part.paths.index(next(path for path in part.paths if path.endswith("class1/000.png")))
    by_hand = (torch.tensor([60, 100, 170]) / 255 - torch.tensor(folders.MEAN)) / torch.tensor(folders.STD)
    image = torch.cat([images for images, _ in first])[row]
    torch.testing.assert_close(image, by_hand.view(3, 1, 1).expand(3, 64, 64))
    again = list(part.batches(5))
    assert len(part._kept) == 12
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    head = part.head(7)
    assert [len(labels) for _, labels in head.batches(5)] == [5, 2]


def test_memory_for_decoded_images_is_bounded(root, monkeypatch):
    monkeypatch.setattr(folders, "_KEPT_BYTES", 3 * 3 * 64 * 64)
    part = load_images(OWN, root).test
    assert sum(len(labels) for _, labels in part.batches(1)) == 12
    assert 3 <= len(part._kept) <= 4  # a thread may be at work while another one fills the last place


def test_a_training_batch_is_a_function_of_streams_and_step_alone(root):
    whole = load_images(OWN, root)
    for step in range(3):
        torch.rand(7)
        last = whole.training_batch(step, RUN, OWN)
    resumed = load_images(OWN, root).training_batch(2, RUN, OWN)
    assert torch.equal(last[0], resumed[0])
    assert torch.equal(last[1], resumed[1])
    assert last[0].shape == (4, 3, 64, 64)
    assert not torch.equal(last[0], whole.training_batch(2, Streams((6,)), OWN)[0])


def test_an_epoch_shows_every_training_image_once(root):
    images = load_images(OWN, root)
    protocol = OWN.model_copy(update={"batch_size": 6})
    labels = torch.cat([images.training_batch(step, RUN, protocol)[1] for step in range(3)])
    assert torch.bincount(labels).tolist() == [6, 6, 6]


def test_without_crops_jitter_and_flips_training_images_are_those_of_the_evaluation(root):
    plain = OWN.model_copy(update={"crop_area": None, "colour_jitter": None, "flip": False, "batch_size": 18})
    images = load_images(plain, root)
    batch, labels = images.training_batch(0, RUN, plain)
    seen = {
        tuple(image[:, 30, 30].tolist()) for image, label in zip(batch, labels, strict=True) if label == 1
    }
    kept = {
        tuple(image[:, 30, 30].tolist())
        for evaluated, labels in images.train.batches(18)
        for image, label in zip(evaluated, labels, strict=True)
        if label == 1
    }
    assert seen == kept


def test_noise_depends_on_the_image_alone_and_pixels_stay_in_range(root):
    part = load_images(OWN, root).test
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (folders.MEAN, folders.STD))
    clean = torch.cat([images for images, _ in part.batches(5)])
    noisy = torch.cat([images for images, _ in part.noisy(0.18).batches(5)])
    assert torch.equal(noisy[:8], torch.cat([images for images, _ in part.noisy(0.18).head(8).batches(8)]))
    pixels = noisy * std + mean
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    middle = (clean * std + mean > 0.35) & (clean * std + mean < 0.65)
    # Within 2 deviations of the bounds at the least: clipping takes a little of the deviation.
    assert 0.15 < float((pixels - clean * std - mean)[middle].std()) < 0.185


def test_random_parts_have_the_area_and_aspect_they_should():
    boxes = [random_part(RUN.generator("test", step), 60, 100, (0.08, 1.0)) for step in range(400)]
    for top, left, height, width in boxes:
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 100 - width
        assert 0.7 < width / height < 1.4
    areas = np.array([height * width for _, _, height, width in boxes]) / 6000
    assert 0.07 < areas.min() < 0.12
    assert areas.max() <= 1
    # No part of 3:4 to 4:3 with nine tenths of a strip's area: the largest centred one.
    assert random_part(RUN.generator("test", 0), 300, 30, (0.9, 1.0)) == (130, 0, 40, 30)
    assert random_part(RUN.generator("test", 0), 30, 300, (0.9, 1.0)) == (0, 130, 30, 40)


def test_jitter_factors_stay_within_their_strengths_and_come_in_any_order():
    draws = [jitter(RUN.generator("test", step), (0.4, 0.3, 0.2, 0.1)) for step in range(200)]
    by_name = {name: [factor for draw in draws for n, factor in draw if n == name] for name, _ in draws[0]}
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.7, 1.3),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
    ):
        assert len(by_name[name]) == 200
        assert low <= min(by_name[name]) < low + 0.1 * (high - low)
        assert high >= max(by_name[name]) > high - 0.1 * (high - low)
    assert len({tuple(name for name, _ in draw) for draw in draws}) == 24


def test_the_fingerprint_is_that_of_names_parts_and_sizes(tmp_path):
    write_parts(tmp_path, {"train": 3, "val": 1, "test": 1}, n_classes=2)
    before = fingerprint(OWN, tmp_path)
    assert before == fingerprint(OWN, tmp_path)
    file = tmp_path / "test" / "class0" / "000.png"
    file.write_bytes(file.read_bytes() + b"x")
    changed = fingerprint(OWN, tmp_path)
    file.rename(file.with_name("001.png"))
    assert len({before, changed, fingerprint(OWN, tmp_path)}) == 3


def test_a_damaged_image_is_named(root, tmp_path):
    write_parts(tmp_path, {"train": 3, "val": 1, "test": 2}, n_classes=2)
    images = load_images(OWN, tmp_path)
    jpeg = tmp_path / "train" / "class0" / "001.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:200])
    (tmp_path / "test" / "class1" / "000.png").write_text("no image")
    with pytest.raises(BadInput, match=r"Image .*class0/001.jpg cannot be read .*; replace or remove it\.$"):
        images.training_batch(0, RUN, OWN.model_copy(update={"batch_size": 6}))
    with pytest.raises(BadInput, match=r"Image .*class1/000.png cannot be read .*identify"):
        list(images.test.batches(4))


def test_folders_in_another_layout_are_one_sentence(root, tmp_path):
    with pytest.raises(BadInput, match=r"is not a folder with one folder of images a class"):
        load_images(OWN, tmp_path)
    with pytest.raises(BadInput, match=r"train is not a folder with one folder of images a class"):
        load_images(IMAGENET, tmp_path)
    write_parts(tmp_path, {"train": 1, "val": 1}, n_classes=2)
    with pytest.raises(BadInput, match=r"test is not a folder with one folder of images a class"):
        load_images(OWN, tmp_path)
    write_parts(tmp_path / "x", {"test": 1}, n_classes=1)
    (tmp_path / "x" / "test").rename(tmp_path / "test")
    write_class(tmp_path / "test" / "other", 1, (0, 0, 0))
    with pytest.raises(BadInput, match=r"differ: 'class1' is in train but not in test"):
        load_images(OWN, tmp_path)
    (tmp_path / "val" / "empty").mkdir()
    with pytest.raises(BadInput, match=r"Found no valid file for the classes empty"):
        load_images(OWN, tmp_path)
    (tmp_path / "train").rename(tmp_path / "training")
    with pytest.raises(BadInput, match=r"'val' or 'test' but no 'train'"):
        load_images(OWN, tmp_path)
    write_class(tmp_path / "few" / "a", 3, (0, 0, 0))
    with pytest.raises(BadInput, match="has one class only, 'a'"):
        load_images(OWN, tmp_path / "few")
    write_class(tmp_path / "few" / "b", 2, (0, 0, 0))
    with pytest.raises(BadInput, match="b has fewer than 3 images"):
        load_images(OWN, tmp_path / "few")
