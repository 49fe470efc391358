from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medllm.data.blur import blurred


def test_blur_is_a_gaussian_over_both_axes_of_each_channel():
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = gaussian_filter(values.numpy(), (0, 0, 8, 8), mode="nearest", truncate=3)
    np.testing.assert_allclose(blurred(values, 1 / 4).numpy(), wanted, atol=1e-6)
