"""Encoders of transformers that open_clip takes as text towers, in the names of ours (``cpt.clip.encoder``)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cpt.clip.foreign import ForeignTokenizer
from cpt.clip.hub import of_hub, require_transformers
from cpt.clip.padded import MEAN
from cpt.errors import CptError

BERTS = ("bert", "roberta", "xlm-roberta")
"""Model types of transformers with BERT's blocks."""
POOLINGS = ("cls_pooler", "cls_last_hidden_state_pooler", "mean_pooler")
"""Poolings of open_clip. The first is also followed by BERT's own layer, if it has one."""
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
"""Names of transformers and ours."""


def is_encoder(text: Any) -> bool:
    """Whether a text tower of open_clip is one of transformers."""
    from open_clip.hf_model import HFTextEncoder

    return isinstance(text, HFTextEncoder)


def require_config(text: Mapping[str, Any], joint: int) -> Any:
    """Refuse what can be seen in the ``text_cfg`` of a model configuration; return the encoder's.

    Args:
        joint: width of the features.

    Raises:
        CptError: transformers is not installed, the encoder's configuration cannot be had, or it has parts that our
            towers lack; names the part.
    """
    name, pool = text["hf_model_name"], text.get("hf_pooler_type", "mean_pooler")  # as open_clip
    require_transformers(f"text tower {name}")
    from transformers import AutoConfig

    read = partial(AutoConfig.from_pretrained, name, trust_remote_code=False)
    found = of_hub(name, "text tower", "hf_model_name", ["config.json"], read)
    _require(found, pool, name)
    projection, width = text.get("hf_proj_type", "mlp"), getattr(found, "hidden_size", None)
    if projection not in (None, "linear", "mlp") or (projection is None and width != joint):
        raise CptError(
            f"backbone: text tower {name} of transformers: text_cfg.hf_proj_type {projection} does not lead from its "
            f"width {width} to embed_dim {joint}; give linear or mlp, as the weights have it"
        )
    return found


def require_tokenizer(found: Any, tokenizer: ForeignTokenizer, length: int, name: str) -> None:
    """Refuse a tokenizer that is not that of the encoder.

    Args:
        found: configuration of the encoder.
        length: positions that a text may have.

    Raises:
        CptError: names what does not fit.
    """
    pad, own = found.pad_token_id, "set text_cfg.hf_tokenizer_name to the tower's own"
    positions = found.max_position_embeddings - (pad + 1 if found.model_type in ("roberta", "xlm-roberta") else 0)
    if tokenizer.rows > found.vocab_size:
        raise CptError(
            f"backbone: the tokenizer has {tokenizer.rows} tokens, text tower {name} {found.vocab_size}; {own}"
        )
    if tokenizer.marks["end"] == pad:
        raise CptError(f"backbone: the tokenizer ends texts with {pad}, the padding of text tower {name}; {own}")
    if tokenizer.marks["pad"] != pad:
        raise CptError(
            f"backbone: the tokenizer pads with {tokenizer.marks['pad']}, text tower {name} with {pad}; {own}"
        )
    if length > positions:
        raise CptError(
            f"backbone: text tower {name} has {positions} positions, text_cfg.context_length is {length}; lower it"
        )


def _require(found: Any, pool: str | None, name: str) -> None:
    """Refuse a configuration of transformers."""
    kind = found.model_type
    activation = getattr(found, "hidden_act", getattr(found, "activation_function", None))
    positions = getattr(found, "position_embedding_type", "absolute")
    attention = getattr(found, "_attn_implementation", None)
    for held, what, supported in (
        (kind in (*BERTS, "m2m_100"), f"model type {kind}", ", ".join((*BERTS, "m2m_100"))),
        (pool is None or pool in POOLINGS, f"pooling {pool}", ", ".join(POOLINGS)),
        (activation in ACTIVATIONS, f"activation {activation}", ", ".join(ACTIVATIONS)),
        (positions in ("absolute", None), f"{positions} positions", "absolute ones"),
        # another would be fetched as code
        (attention in (None, "eager", "sdpa"), f"attn_implementation {attention}", "eager, sdpa"),
        (not getattr(found, "is_decoder", False) or kind == "m2m_100", "a decoder", "encoders"),
    ):
        if not held:
            raise CptError(
                f"backbone: unsupported architecture: text tower {name} of transformers: {what} "
                f"(supported: {supported})"
            )


def export(text: Any, length: int, marks: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the specification of a text tower of open_clip that is an encoder of transformers.

    Args:
        length: positions that a text may have.
        marks: of its tokenizer (``cpt.clip.foreign``).
    """
    model, config = text.transformer, text.config
    bert = config.model_type in BERTS
    tensors, positions = _bert(model) if bert else _m2m(model)
    tensors["positional_embedding"] = positions[:length]
    weights = [layer.weight.T for layer in text.proj.modules() if isinstance(layer, nn.Linear)]
    tensors |= dict(zip(("text_projection", "hidden"), reversed(weights), strict=False))
    spec = {
        "layers": config.num_hidden_layers if bert else config.encoder_layers,
        "heads": config.num_attention_heads if bert else config.encoder_attention_heads,
        "width": config.hidden_size,
        "activation": ACTIVATIONS[config.hidden_act if bert else config.activation_function],
        "eps": config.layer_norm_eps if bert else model.layer_norm.eps,
        "context_length": length + ("start" not in marks),
        "causal": False,
        "pool": _pool(text.pooler),
        "marks": dict(marks),
        "norms": "behind" if bert else "before",
    }
    return tensors, spec


def _pool(pooler: Any) -> str:
    from open_clip import hf_model

    return MEAN if isinstance(pooler, hf_model.MeanPooler) else "first"


def _named(part: Any, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in part.state_dict().items()}


def _block(
    i: int, norms: tuple[Any, Any], attention: tuple[Any, Any, Any, Any], mlp: tuple[Any, Any]
) -> dict[str, Tensor]:
    """Tensors of a block by the names of ``Block``: attention is queries, keys, values and output."""
    prefix = f"transformer.resblocks.{i}"
    *inputs, output = attention
    joined = {
        f"{prefix}.attn.in_proj_{name}": torch.cat([getattr(part, name) for part in inputs])
        for name in ("weight", "bias")
    }
    for part, name in zip(
        (*norms, output, *mlp), ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"), strict=True
    ):
        joined |= _named(part, f"{prefix}.{name}")
    return joined


def _bert(model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Tensors of an encoder of BERT's kind, and its positions."""
    embeddings = model.embeddings
    positions = embeddings.position_embeddings.weight
    if model.config.model_type != "bert":  # RoBERTa counts from behind the padding's id
        positions = positions[model.config.pad_token_id + 1 :]
    tensors = {"token_embedding.weight": embeddings.word_embeddings.weight} | _named(embeddings.LayerNorm, "ln_pre")
    for i, layer in enumerate(model.encoder.layer):
        own, output = layer.attention.self, layer.attention.output
        tensors |= _block(
            i,
            (output.LayerNorm, layer.output.LayerNorm),
            (own.query, own.key, own.value, output.dense),
            (layer.intermediate.dense, layer.output.dense),
        )
    if getattr(model, "pooler", None) is not None:
        tensors |= _named(model.pooler.dense, "pooler")
    return tensors, positions + embeddings.token_type_embeddings.weight[0]


def _m2m(model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Tensors of the encoder of M2M-100, and its positions."""
    words = model.embed_tokens
    tensors = {"token_embedding.weight": words.weight * words.embed_scale} | _named(model.layer_norm, "ln_final")
    for i, layer in enumerate(model.layers):
        own = layer.self_attn
        tensors |= _block(
            i,
            (layer.self_attn_layer_norm, layer.final_layer_norm),
            (own.q_proj, own.k_proj, own.v_proj, own.out_proj),
            (layer.fc1, layer.fc2),
        )
    return tensors, model.embed_positions.weights[model.config.pad_token_id + 1 :]
