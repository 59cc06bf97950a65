"""Image towers of timm that are plain vision transformers, in the names of our own tower.

open_clip builds SigLIP's and others' image towers with timm. What such a tower computes is described by its modules, so
``described`` looks at every one of them: a part that ours does not have makes it another kind of tower, which is taken
as it is (``cpt.clip.whole``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cpt.clip.pooling import AttentionPool

_POOLS = {"token": "token", "map": "attention", "avg": "mean"}
_BLOCK = {
    "norm1": "ln_1", "norm2": "ln_2", "attn.qkv": "attn.in_proj", "attn.proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def described(visual: Any) -> dict[str, Any] | None:
    """Return the specification of our tower for one that timm makes; None for others, or where ours lacks a part."""
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        return None
    from timm.models import vision_transformer as timm

    if type(trunk) is not timm.VisionTransformer or not _plain_ends(visual):
        return None
    blocks: list[Any] = list(trunk.blocks)
    norms = [norm for block in blocks for norm in (block.norm1, block.norm2)] + _norms(trunk)
    eps, kinds = {_eps(norm) for norm in norms}, {_activation(block.mlp.act) for block in blocks}
    if not all(map(_plain_block, blocks)) or len(eps) != 1 or len(kinds) != 1 or None in eps | kinds:
        return None
    spec = {
        "name": f"{type(trunk).__name__} of timm",
        "layers": len(blocks),
        "heads": int(blocks[0].attn.num_heads),
        "width": int(trunk.embed_dim),
        "activation": kinds.pop(),
        "eps": eps.pop(),
        "patch_size": list(trunk.patch_embed.patch_size),
        "image_size": list(trunk.patch_embed.img_size),
        "pool": _POOLS[trunk.global_pool],
        "norm_last": isinstance(trunk.norm, nn.Identity),
    }
    return spec | (_pool(trunk.attn_pool) if trunk.attn_pool is not None else {})


def tensors(visual: Any) -> dict[str, Tensor]:
    """Return the weights of a tower that ``described`` describes, as ``VisionTower`` takes them."""
    trunk, width = visual.trunk, visual.trunk.embed_dim
    found = {"conv1.weight": trunk.patch_embed.proj.weight, "positional_embedding": trunk.pos_embed[0]}
    if trunk.patch_embed.proj.bias is not None:
        found["conv1.bias"] = trunk.patch_embed.proj.bias
    if trunk.cls_token is not None:
        found["class_embedding"] = trunk.cls_token[0, 0]
    for name, norm in zip(("ln_pre", "ln_post"), (trunk.norm_pre, *_norms(trunk)[-1:]), strict=True):
        if isinstance(norm, nn.LayerNorm):
            found |= {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}
    projection = _projection(visual)
    if projection is not None:
        found["proj"] = projection.weight.T
        if projection.bias is not None:
            found["proj_bias"] = projection.bias
    if trunk.attn_pool is not None:
        found |= {f"attn_pool.{name}": value for name, value in trunk.attn_pool.state_dict().items()}
    for i, block in enumerate(trunk.blocks):
        for timm_name, name in _BLOCK.items():
            part = block.get_submodule(timm_name)
            joint = "_" if name == "attn.in_proj" else "."
            found[f"transformer.resblocks.{i}.{name}{joint}weight"] = part.weight
            bias = torch.zeros(len(part.weight)) if part.bias is None else part.bias
            found[f"transformer.resblocks.{i}.{name}{joint}bias"] = bias
        for timm_name, name in (("ls1", "ls_1"), ("ls2", "ls_2")):
            if not isinstance(scale := getattr(block, timm_name), nn.Identity):
                found[f"transformer.resblocks.{i}.{name}.gamma"] = scale.gamma.expand(width)
    return found


def _plain_ends(visual: Any) -> bool:
    """Whether what stands before and behind the blocks is what our tower has."""
    from timm.layers import AttentionPoolLatent, PatchEmbed

    trunk, embed = visual.trunk, visual.trunk.patch_embed
    pool = trunk.attn_pool
    return (
        type(embed) is PatchEmbed
        and embed.flatten
        and isinstance(embed.norm, nn.Identity)
        and list(visual.image_size) == list(embed.img_size)
        and trunk.pos_embed is not None
        and trunk.num_prefix_tokens == int(trunk.cls_token is not None)
        and not (trunk.no_embed_class and trunk.cls_token is not None)
        and not trunk.dynamic_img_size
        and not trunk.pool_include_prefix
        and trunk.global_pool in _POOLS
        and len(_norms(trunk)) == (2 if isinstance(trunk.norm_pre, nn.LayerNorm) else 1)
        and (pool is None or (type(pool) is AttentionPoolLatent and _plain_pool(pool)))
        and (isinstance(trunk.head, nn.Identity) or len(visual.head) == 0)
        and set(dict(visual.head.named_children())) <= {"drop", "proj"}
    )


def _plain_block(block: Any) -> bool:
    from timm.layers import Attention, Mlp
    from timm.models.vision_transformer import Block

    attn, mlp = block.attn, block.mlp
    return (
        type(block) is Block
        and type(attn) is Attention
        and type(mlp) is Mlp
        and attn.gate is None
        and attn.num_heads * attn.head_dim == attn.proj.out_features
        and all(isinstance(part, nn.Identity) for part in (attn.q_norm, attn.k_norm, attn.norm, mlp.norm))
        and isinstance(mlp.fc1, nn.Linear)
    )


def _plain_pool(pool: Any) -> bool:
    return (
        pool.latent_len == 1
        and pool.pos_embed is None
        and pool.pool == "token"
        and isinstance(pool.q, nn.Linear)
        and isinstance(pool.q_norm, nn.Identity)
        and isinstance(pool.norm, nn.LayerNorm)
        and _activation(pool.mlp.act) is not None
        and set(pool.state_dict()) == set(AttentionPool.NAMES)
    )


def _pool(pool: Any) -> dict[str, Any]:
    kind = _activation(pool.mlp.act)
    return {"pool_heads": int(pool.num_heads), "pool_eps": _eps(pool.norm), "pool_activation": kind}


def _norms(trunk: Any) -> list[nn.LayerNorm]:
    """The norms before and behind the blocks."""
    return [norm for norm in (trunk.norm_pre, trunk.norm, trunk.fc_norm) if isinstance(norm, nn.LayerNorm)]


def _projection(visual: Any) -> nn.Linear | None:
    """The last layer, which open_clip puts behind timm's tower or makes timm's own classifier."""
    last = getattr(visual.head, "proj", None) or visual.trunk.head
    return last if isinstance(last, nn.Linear) else None


def _eps(norm: Any) -> float | None:
    return float(norm.eps) if isinstance(norm, nn.LayerNorm) else None


def _activation(act: Any) -> str | None:
    """Our name of an activation of timm or torch."""
    name = type(act).__name__
    if name == "GELU":
        return "gelu_tanh" if getattr(act, "approximate", "none") == "tanh" else "gelu"
    return {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}.get(name)
