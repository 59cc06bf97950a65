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


def described(visual: Any) -> dict[str, Any] | None:
    """Return the specification of our tower for one that timm makes; None for others, or where ours lacks a part."""
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        return None
    from timm.models import eva
    from timm.models import vision_transformer as timm

    known = timm.VisionTransformer, eva.Eva
    if type(trunk) not in known or not _plain_ends(visual):
        return None
    blocks: list[Any] = list(trunk.blocks)
    if not all(map(_plain_block, blocks)):
        return None
    norms = [norm for block in blocks for norm in _block_norms(block)] + _norms(trunk)
    eps, kinds = {_eps(norm) for norm in norms}, {_mlp_activation(block.mlp) for block in blocks}
    if len(eps) != 1 or len(kinds) != 1 or None in eps | kinds:
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
    if type(trunk) is eva.Eva:
        spec["block"] = "eva"
        if trunk.attn_pool is not None:  # unlike timm's other one it pools the class token, too
            spec["pool_first"] = 0
    return spec | (_pool(trunk.attn_pool) if trunk.attn_pool is not None else {})


def tensors(visual: Any) -> dict[str, Tensor]:
    """Return the weights of a tower that ``described`` describes, as ``VisionTower`` takes them."""
    trunk, positions = visual.trunk, visual.trunk.pos_embed[0]
    if trunk.no_embed_class and trunk.cls_token is not None:
        positions = torch.cat([torch.zeros_like(positions[:1]), positions])
    found = {"conv1.weight": trunk.patch_embed.proj.weight, "positional_embedding": positions}
    if getattr(trunk, "rope", None) is not None:
        found["rotary"] = trunk.rope.get_embed()
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
        found |= {f"transformer.resblocks.{i}.{name}": value for name, value in _block(block).items()}
    return found


def _block(block: Any) -> dict[str, Tensor]:
    """The tensors of a block in the names of ours."""
    attn, mlp = block.attn, block.mlp
    weight, bias = _in_projection(attn)
    found = {"attn.in_proj_weight": weight, "attn.in_proj_bias": bias}
    layers = {"ln_1": block.norm1, "ln_2": block.norm2, "attn.out_proj": attn.proj, "mlp.c_proj": mlp.fc2}
    layers |= {f"{name}.norm": part.norm for name, part in (("attn", attn), ("mlp", mlp)) if _eps(part.norm)}
    if hasattr(mlp, "fc1_g"):
        layers |= {"mlp.c_fc": mlp.fc1_x, "mlp.c_gate": mlp.fc1_g}
    elif type(mlp).__name__ == "GluMlp":
        for name, part, values in zip(("mlp.c_gate", "mlp.c_fc"), *(_halves(mlp.fc1)), strict=True):
            found |= {f"{name}.weight": part, f"{name}.bias": values}
    else:
        layers["mlp.c_fc"] = mlp.fc1
    for name, layer in layers.items():
        values = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        found |= {f"{name}.weight": layer.weight, f"{name}.bias": values}
    for number in (1, 2):
        gamma = getattr(getattr(block, f"ls{number}", None), "gamma", getattr(block, f"gamma_{number}", None))
        if gamma is not None:
            found[f"ls_{number}.gamma"] = gamma
    return found


def _halves(layer: nn.Linear) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights and biases of the two layers that a packed one holds."""
    return layer.weight.chunk(2), layer.bias.chunk(2)


def _in_projection(attn: Any) -> tuple[Tensor, Tensor]:
    """Weight (3d, d) and bias (3d) of queries, keys and values, however timm keeps them; no bias is zero."""
    if attn.qkv is None:
        parts = attn.q_proj, attn.k_proj, attn.v_proj
        weight, biases = torch.cat([part.weight for part in parts]), [part.bias for part in parts]
    elif getattr(attn, "q_bias", None) is not None:
        weight, biases = attn.qkv.weight, [attn.q_bias, None, attn.v_bias]
    else:
        weight, whole = attn.qkv.weight, attn.qkv.bias
        biases = [None] * 3 if whole is None else list(whole.chunk(3))
    zeros = torch.zeros(len(weight) // 3)
    return weight, torch.cat([zeros if bias is None else bias for bias in biases])


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
        and not trunk.dynamic_img_size
        and not getattr(trunk, "pool_include_prefix", False)
        and not getattr(trunk, "rope_mixed", False)
        and (getattr(trunk, "rope", None) is None or trunk.cls_token is not None)
        and trunk.global_pool in _POOLS
        and len(_norms(trunk)) == (2 if isinstance(trunk.norm_pre, nn.LayerNorm) else 1)
        and (pool is None or (type(pool) is AttentionPoolLatent and _plain_pool(pool)))
        and (isinstance(trunk.head, nn.Identity) or len(visual.head) == 0)
        and set(dict(visual.head.named_children())) <= {"drop", "proj"}
    )


def _plain_block(block: Any) -> bool:
    """Whether it is timm's plain block, or one of EVA, with no part that ours lacks."""
    from timm.layers import Attention, AttentionRope, GluMlp, Mlp, SwiGLU
    from timm.models.eva import EvaAttention, EvaBlock
    from timm.models.vision_transformer import Block

    attn, mlp, inner = block.attn, block.mlp, (block.attn.norm, block.mlp.norm)
    if type(block) is Block:
        known = type(attn) is Attention and type(mlp) is Mlp and all(isinstance(x, nn.Identity) for x in inner)
    else:
        gated = type(mlp) is SwiGLU or (type(mlp) is GluMlp and not mlp.gate_last and isinstance(mlp.act, nn.SiLU))
        known = type(block) is EvaBlock and type(attn) in (EvaAttention, AttentionRope) and (gated or type(mlp) is Mlp)
        known = known and not attn.rotate_half and getattr(attn, "num_kv_groups", 1) == 1
    return (
        known
        and getattr(attn, "gate", None) is None
        and attn.num_heads * attn.head_dim == attn.proj.out_features
        and all(isinstance(part, nn.Identity) for part in (attn.q_norm, attn.k_norm))
        and isinstance(mlp.fc2, nn.Linear)
    )


def _block_norms(block: Any) -> list[nn.LayerNorm]:
    inner = [norm for norm in (block.attn.norm, block.mlp.norm) if not isinstance(norm, nn.Identity)]
    return [block.norm1, block.norm2, *inner]


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


def _mlp_activation(mlp: Any) -> str | None:
    """That of an MLP; gated ones have their own, and take any."""
    return "gelu" if type(mlp).__name__ in ("SwiGLU", "GluMlp") else _activation(mlp.act)


def _activation(act: Any) -> str | None:
    """Our name of an activation of timm or torch."""
    name = type(act).__name__
    if name == "GELU":
        return "gelu_tanh" if getattr(act, "approximate", "none") == "tanh" else "gelu"
    return {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}.get(name)
