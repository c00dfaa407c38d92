import pytest
import torch

from deepnets_bench.ghn.decoders import ConvDecoder, KernelGroup, MLPDecoder, _LeadingProducts

GROUPS = [
    KernelGroup(0, 2, (3, 2), (3, 2, 1, 1), (3, 2), (1, 1)),
    KernelGroup(2, 3, (4, 5, 1, 3), (4, 5, 1, 3), (4, 5), (1, 3)),
    KernelGroup(3, 6, (3, 2, 2, 3), (3, 2, 2, 3), (3, 2), (2, 3)),
]
MAX_SHAPE = (4, 5, 5, 5)


@pytest.mark.parametrize("central", [False, True])
def test_conv_decoder_computes_a_window_of_the_whole(central: bool) -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(8, MAX_SHAPE, 10, central).double()
    x, scale = torch.randn(6, 8).double(), torch.rand(6).double() + 0.5
    maps = decoder.fc(x).view(6, -1, 5, 5)
    layers = [layer.weight.flatten(1) for layer in (decoder.conv[0], decoder.conv[2])]
    hidden = torch.einsum("nchw,dc->ndhw", maps, layers[0]) + decoder.conv[0].bias[:, None, None]
    whole = torch.einsum("nchw,dc->ndhw", hidden.relu(), layers[1]) + decoder.conv[2].bias[:, None, None]
    whole = whole.view(6, *MAX_SHAPE) * scale.view(6, 1, 1, 1, 1)
    # By hand for a limit of 5: a window of 1 starts at 2, of 2 at 1, of 3 at 1.
    starts = {1: 2, 2: 1, 3: 1} if central else {1: 0, 2: 0, 3: 0}
    for group, predicted in zip(GROUPS, decoder(x, scale, GROUPS), strict=True):
        rows, columns = (slice(starts[size], starts[size] + size) for size in group.window)
        out, inp = group.channels
        expected = whole[group.start : group.stop, :out, :inp, rows, columns]
        torch.testing.assert_close(predicted, expected)


def test_mlp_decoder_keeps_the_corner() -> None:
    torch.manual_seed(0)
    decoder = MLPDecoder(8, MAX_SHAPE, 10).double()
    x, scale = torch.randn(6, 8).double(), torch.rand(6).double() + 0.5
    whole = decoder.mlp(x).view(6, *MAX_SHAPE) * scale.view(6, 1, 1, 1, 1)
    for group, predicted in zip(GROUPS, decoder(x, scale, GROUPS), strict=True):
        out, inp = group.channels
        height, width = group.window
        torch.testing.assert_close(predicted, whole[group.start : group.stop, :out, :inp, :height, :width])
    assert decoder.class_weight(x).shape == (6, 10, 5)


def test_gradient_of_the_products() -> None:
    torch.manual_seed(0)
    weight, bias, a, b = (
        torch.randn(size, dtype=torch.float64, requires_grad=True)
        for size in ((4, 5, 3), (4, 5), (2, 3), (6, 3))
    )
    scales = [torch.rand(2).double(), torch.rand(6).double()]

    def products(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _LeadingProducts.apply(*inputs[:2], [(4, 5), (2, 3)], scales, *inputs[2:])

    assert torch.autograd.gradcheck(products, (weight, bias, a, b))


def test_nothing_to_predict() -> None:
    decoder = ConvDecoder(8, MAX_SHAPE, 10)
    assert decoder(torch.zeros(0, 8), torch.zeros(0), []) == []
