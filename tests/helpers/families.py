"""Small random models of every family of backbones, as model configurations of open_clip."""

from __future__ import annotations

from functools import partial
from typing import Any

import open_clip
import torch
from timm.layers import LayerNorm
from timm.models import register_model
from timm.models.convnext import ConvNeXt, _create_convnext
from timm.models.eva import Eva, _create_eva
from timm.models.fastvit import FastVit, RepConditionalPosEnc, _create_fastvit
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer

from tests.helpers.encoders import ENCODERS, text_config

SIZE = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}


@register_model
def cpt_siglip(pretrained: bool = False, **others: Any) -> VisionTransformer:
    """As ``vit_base_patch16_siglip_224``, small."""
    shape = SIZE | {"class_token": False, "global_pool": "map"}
    return _create_vision_transformer("cpt_siglip", pretrained=pretrained, **shape | others)


@register_model
def cpt_siglip2(pretrained: bool = False, **others: Any) -> VisionTransformer:
    """As ``vit_so400m_patch14_siglip_378``, small."""
    shape = SIZE | {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"}
    return _create_vision_transformer("cpt_siglip2", pretrained=pretrained, **shape | others)


@register_model
def cpt_gap(pretrained: bool = False, **others: Any) -> VisionTransformer:
    """As ``vit_medium_patch16_gap_256``, small."""
    shape = SIZE | {"class_token": False, "global_pool": "avg", "init_values": 0.5, "fc_norm": False}
    return _create_vision_transformer("cpt_gap", pretrained=pretrained, **shape | others)


@register_model
def cpt_eva(pretrained: bool = False, **others: Any) -> Eva:
    """As ``eva_giant_patch14_224``, small."""
    return _create_eva("cpt_eva", pretrained=pretrained, **SIZE | {"init_values": 0.5} | others)


@register_model
def cpt_eva02(pretrained: bool = False, **others: Any) -> Eva:
    """As ``eva02_base_patch16_clip_224``, small."""
    shape = SIZE | {
        "patch_size": 8, "qkv_fused": False, "mlp_ratio": 4 * 2 / 3, "swiglu_mlp": True, "scale_mlp": True,
        "scale_attn_inner": True, "use_rot_pos_emb": True, "ref_feat_shape": (2, 2), "num_heads": 4,
    }  # fmt: skip
    return _create_eva("cpt_eva02", pretrained=pretrained, **shape | others)


@register_model
def cpt_pe(pretrained: bool = False, **others: Any) -> Eva:
    """As ``vit_pe_core_tiny_patch16_384``, small."""
    shape = SIZE | {
        "patch_size": 8, "global_pool": "map", "attn_type": "rope", "use_pre_transformer_norm": True,
        "use_rot_pos_emb": True, "ref_feat_shape": (4, 4), "rope_grid_offset": 1.0, "rope_grid_indexing": "xy",
        "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 4.0, "norm_layer": partial(LayerNorm, eps=1e-5),
        "num_heads": 4,
    }  # fmt: skip
    return _create_eva("cpt_pe", pretrained=pretrained, **shape | others)


@register_model
def cpt_convnext(pretrained: bool = False, **others: Any) -> ConvNeXt:
    """As ``convnext_base``, small."""
    shape = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
    return _create_convnext("cpt_convnext", pretrained=pretrained, **shape | others)


@register_model
def cpt_fastvit(pretrained: bool = False, **others: Any) -> FastVit:
    """As ``fastvit_mci0``, small."""
    shape = {
        "layers": (1, 1, 1, 1), "embed_dims": (8, 16, 32, 64), "mlp_ratios": (2, 2, 2, 2),
        "se_downsamples": (False, False, True, True), "token_mixers": ("repmixer",) * 3 + ("attention",),
        "pos_embs": (None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))), "lkc_use_act": True,
    }  # fmt: skip
    return _create_fastvit("cpt_fastvit", pretrained=pretrained, **shape | others)


CAUSAL = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
BOTH_WAYS = CAUSAL | {
    "context_length": 64, "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
}  # fmt: skip


def timm(model: str, **others: Any) -> dict[str, Any]:
    """An image tower of timm."""
    return {"image_size": 32, "timm_model_name": model, "timm_model_pretrained": False} | others


SIGLIP = {"timm_pool": "map", "timm_proj": "none"}
FAMILIES: dict[str, dict[str, Any]] = {
    "siglip": {
        "embed_dim": 64, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": timm("cpt_siglip", **SIGLIP), "text_cfg": BOTH_WAYS,
    },
    "siglip2": {
        "embed_dim": 64, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": timm("cpt_siglip2", **SIGLIP),
        "text_cfg": BOTH_WAYS | {"act_kwargs": {"approximate": "tanh"}},
    },
    "eva": {
        "embed_dim": 24, "custom_text": True, "vision_cfg": timm("cpt_eva", timm_pool="token", timm_proj=None),
        "text_cfg": CAUSAL,
    },
    "eva02": {
        "embed_dim": 24, "custom_text": True, "vision_cfg": timm("cpt_eva02", timm_pool="token", timm_proj=None),
        "text_cfg": CAUSAL,
    },
    "pe": {
        "embed_dim": 24, "custom_text": True, "vision_cfg": timm("cpt_pe", timm_pool="map", timm_proj=None),
        "text_cfg": CAUSAL,
    },
    "resnet": {
        "embed_dim": 24, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": CAUSAL,
    },
    "convnext": {
        "embed_dim": 24, "vision_cfg": timm("cpt_convnext", timm_pool="", timm_proj="linear"), "text_cfg": CAUSAL,
    },
    "mobileclip": {
        "embed_dim": 24, "custom_text": True, "vision_cfg": timm("cpt_fastvit", timm_pool="avg", timm_proj=None),
        "text_cfg": CAUSAL | {"no_causal_mask": True},
    },
    "gap": {
        "embed_dim": 24, "vision_cfg": timm("cpt_gap", timm_pool="", timm_proj="linear"), "text_cfg": CAUSAL,
    },
}  # fmt: skip
"""Model configurations, with CLIP's tokenizer."""
NAMES = (*FAMILIES, *ENCODERS)
"""Those, and with encoders of transformers."""
UNCHANGED = {"resnet", "convnext", "mobileclip"}
"""Families whose image towers take neither prompts nor adapters."""


def configuration(family: str) -> dict[str, Any]:
    """Model configuration of a family."""
    if family in FAMILIES:
        return FAMILIES[family]
    vision = {"image_size": 32, "layers": 3, "width": 64, "patch_size": 16}
    return {"embed_dim": 24, "custom_text": True, "vision_cfg": vision, "text_cfg": text_config(family)}


def shaken(config: dict[str, Any]) -> torch.nn.Module:
    """The model of a configuration, away from initial values, where many terms are zero or one."""
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    torch.manual_seed(0)
    config = {key: value for key, value in config.items() if key != "custom_text"}
    if config["text_cfg"].get("hf_model_name"):  # nothing is fetched
        config["text_cfg"] = config["text_cfg"] | {"hf_model_pretrained": False}
    model = kind(**config)
    for name, parameter in model.named_parameters():
        if parameter.dim():  # not scale and bias of the logits
            parameter.data += 0.05 * torch.randn_like(parameter)
        else:
            parameter.data += 0.5 if name == "logit_scale" else 0.25
    return model.eval().requires_grad_(False)
