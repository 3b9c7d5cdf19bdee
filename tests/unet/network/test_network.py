import math

import numpy as np
import pytest
import torch

from unet.network.losses import distance_loss, multiscale_loss, segmentation_loss, soft_dice_loss
from unet.network.model import UNet
from unet.network.preprocessing import normalized


def tiny() -> UNet:
    torch.manual_seed(0)
    return UNet(in_channels=3, classes=3, widths=(4, 8, 8))


def test_heads_have_the_size_of_the_image() -> None:
    logits, distance = tiny()(torch.rand(2, 3, 32, 48))
    assert logits.shape == (2, 3, 32, 48)
    assert distance.shape == (2, 1, 32, 48)


def test_a_wrong_size_is_an_error_with_the_right_size() -> None:
    with pytest.raises(ValueError, match="pad it to 32 x 48"):
        tiny()(torch.rand(1, 3, 30, 45))


def test_initial_cross_entropy_is_the_log_of_the_number_of_classes() -> None:
    logits, _ = tiny()(torch.rand(2, 3, 32, 32))
    mask = torch.randint(0, 3, (2, 32, 32))
    loss = segmentation_loss(logits, mask, torch.ones(3))
    assert float((loss - soft_dice_loss(logits, mask)).detach()) == pytest.approx(
        math.log(3), abs=1e-5
    )


def test_a_confident_correct_prediction_has_no_loss() -> None:
    mask = torch.randint(0, 3, (1, 16, 16))
    logits = 40.0 * torch.nn.functional.one_hot(mask, 3).movedim(-1, 1)
    assert segmentation_loss(logits, mask, torch.ones(3)).item() < 0.01


def test_ignored_pixels_do_not_affect_the_loss() -> None:
    mask = torch.randint(0, 3, (1, 16, 16))
    mask[:, :5] = 255
    logits, distance = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    target = torch.rand(1, 1, 16, 16)
    before = segmentation_loss(logits, mask, torch.ones(3)), distance_loss(distance, target, mask)
    logits[:, :, :5] = -9
    distance[:, :, :5] = 9
    after = segmentation_loss(logits, mask, torch.ones(3)), distance_loss(distance, target, mask)
    torch.testing.assert_close(before, after)
    logits[:, 0, 5:], distance[:, :, 5:] = -9, 9
    changed = segmentation_loss(logits, mask, torch.ones(3)), distance_loss(distance, target, mask)
    assert changed[0] > after[0] + 1
    assert changed[1] > after[1] + 1


def test_the_network_can_overfit_one_batch() -> None:
    net = tiny()
    image = torch.rand(2, 3, 32, 32)
    mask = (image.mean(1) > 0.5).long()
    optimizer = torch.optim.AdamW(net.parameters(), 0.02)
    for _ in range(150):
        loss = segmentation_loss(net(image)[0], mask, torch.ones(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    assert (net(image)[0].argmax(1) == mask).float().mean() > 0.97


def test_coarse_heads_predict_at_half_and_quarter_size_and_leave_the_output_unchanged() -> None:
    torch.manual_seed(0)
    net = UNet(in_channels=3, classes=3, widths=(4, 8, 8, 8), coarse=2).eval()
    for head in net.coarse:
        torch.nn.init.normal_(head.weight)
    image = torch.rand(2, 3, 32, 48)
    logits, distance = net.at_all_scales(image)
    assert [tuple(scale.shape) for scale in logits] == [
        (2, 3, 32, 48),
        (2, 3, 16, 24),
        (2, 3, 8, 12),
    ]
    assert torch.equal(net(image)[0], logits[0])
    assert torch.equal(net(image)[1], distance)


def test_each_coarser_scale_has_half_the_weight_and_a_subsampled_mask() -> None:
    mask = torch.randint(0, 3, (1, 16, 16))
    logits = [torch.rand(1, 3, 16, 16), torch.rand(1, 3, 8, 8)]
    fine = segmentation_loss(logits[0], mask, torch.ones(3))
    coarse = segmentation_loss(logits[1], mask[:, ::2, ::2], torch.ones(3))
    both = multiscale_loss(logits, mask, torch.ones(3))
    torch.testing.assert_close(both, (2 * fine + coarse) / 3)
    torch.testing.assert_close(multiscale_loss(logits[:1], mask, torch.ones(3)), fine)


@pytest.mark.parametrize("gain", [1, 3])
def test_normalisation_removes_exposure_and_bit_depth(gain: int) -> None:
    image = np.random.default_rng(0).integers(20, 80, (40, 40, 3)).astype(np.uint8)
    brighter = image.astype(np.uint16) * 256 * gain
    assert np.percentile(normalized(image, channels=3), [1, 50, 99]) == pytest.approx(
        [0, 0.5, 1], abs=0.05
    )
    np.testing.assert_allclose(
        normalized(image, channels=3), normalized(brighter, channels=3), atol=1e-3
    )


def test_grey_and_colour_images_get_the_channels_of_the_plan() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert normalized(grey, channels=3).shape == (8, 8, 3)
    assert normalized(np.dstack([grey] * 3), channels=1).shape == (8, 8, 1)
    alone = normalized(grey, channels=1)
    np.testing.assert_allclose(normalized(grey, channels=3), np.repeat(alone, 3, axis=2))
    np.testing.assert_allclose(normalized(np.dstack([grey] * 3), channels=1), alone, atol=0.01)
    assert np.isfinite(normalized(np.zeros((8, 8), np.uint8), channels=1)).all()
