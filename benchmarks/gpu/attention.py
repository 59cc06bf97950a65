"""Part ``attention``: forward and backward of a class alone, or of groups behind a mask, by kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.check import PRECISION, Check

KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
PROBLEMS = {
    "1000 classes of 17": ((1000, 8, 17), False),
    "41 groups of 128": ((41, 8, 128), True),
    "4 images of 205": ((4, 12, 205), False),
}
"""Problems, heads and positions; whether behind a mask."""


def attention(check: Check) -> None:
    """Time the kernel that torch chooses, and every one."""
    for what, ((count, heads, length), masked) in PROBLEMS.items():
        count = 2 if check.quick else count
        qkv = torch.randn(count, length, 3, heads, 64, device=check.device, dtype=PRECISION, requires_grad=True)
        later = torch.full((length, length), -torch.inf, device=check.device, dtype=PRECISION).triu(1)
        mask = later.expand(count, 1, -1, -1) if masked else None

        def both(qkv: Tensor = qkv, mask: Tensor | None = mask) -> None:
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()

        check.row("attention", what, kernel="chosen", us=1e6 * check.seconds(both))
        for kernel in KERNELS if check.cuda else ():
            if masked and kernel == "FLASH_ATTENTION":  # takes no mask
                continue
            with check.tried("attention", what, kernel=kernel), sdpa_kernel(getattr(SDPBackend, kernel)):
                check.row("attention", what, kernel=kernel, us=1e6 * check.seconds(both))
