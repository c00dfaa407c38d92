import pytest
import torch

from deepnets_bench.ghn.shapes import ShapeEncoder, channel_vocabulary, spatial_vocabulary


@pytest.mark.parametrize("num_classes", [10, 1000])
def test_channel_vocabulary_has_the_published_size(num_classes: int) -> None:
    assert len(channel_vocabulary(num_classes)) == 391


def test_spatial_vocabularies_of_both_forms() -> None:
    assert spatial_vocabulary(11) == [1, 3, 5, 7, 9, 11, 14, 16]
    assert spatial_vocabulary(16) == [1, 3, 5, 7, 9, 11, 13, 14, 15, 16]
    assert spatial_vocabulary(7) == spatial_vocabulary(11)


@pytest.mark.parametrize(
    ("num_classes", "channels", "row_of"),
    [
        *[(10, n, 8) for n in (4, 5, 6, 7, 8, 9)],
        (10, 2, 1),
        (10, 10, 10),
        (10, 12, 10),
        (1000, 12, 8),
        (7, 7, 7),
        (10, 60, 56),
        (10, 61, 64),
        (10, 4088, 4080),
        (10, 8192, 8192),
        (10, 50_000, 8192),
        (10_000, 10_000, 10_000),
        (10_000, 9_900, 8192),
    ],
)
def test_channels_round_to_the_vocabulary(num_classes: int, channels: int, row_of: int) -> None:
    encoder = ShapeEncoder(8, num_classes, 11)
    clamped = min(channels, len(encoder.channel_row) - 1)
    assert encoder.channel_row[clamped] == channel_vocabulary(num_classes).index(row_of)


@pytest.mark.parametrize(
    ("limit", "size", "row_of"),
    [
        (11, 2, 3),
        (11, 4, 3),
        (11, 6, 5),
        (11, 12, 11),
        (11, 13, 14),
        (11, 15, 14),
        (16, 15, 15),
        (11, 99, 16),
    ],
)
def test_kernel_sizes_round_to_the_vocabulary(limit: int, size: int, row_of: int) -> None:
    encoder = ShapeEncoder(8, 10, limit)
    clamped = min(size, len(encoder.spatial_row) - 1)
    assert encoder.spatial_row[clamped] == spatial_vocabulary(limit).index(row_of)


def test_features_are_four_embeddings_side_by_side() -> None:
    encoder = ShapeEncoder(8, 10, 11)
    channels, spatial = encoder.embed_channel.weight, encoder.embed_spatial.weight
    got = encoder(torch.tensor([[3, 1, 5, 1], [0, 0, 0, 0]]))
    assert torch.equal(got[0], torch.cat([channels[1], channels[0], spatial[2], spatial[0]]))
    assert torch.equal(got[1], torch.cat([channels[-1], channels[-1], spatial[-1], spatial[-1]]))
