"""Small random encoders of transformers and their tokenizers, in folders as on the hub."""

from __future__ import annotations

import atexit
import shutil
import string
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.helpers.workflow import leave_out

VOCABULARY, POSITIONS = 150, 90
ENCODERS = {
    "bert": {"hf_proj_type": "mlp", "hf_pooler_type": "cls_pooler"},  # BiomedCLIP's parts, and BERT's own last layer
    "roberta": {"hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"},  # roberta-ViT-B-32's and XLM-RoBERTa's
    "m2m_100": {"hf_proj_type": "linear", "hf_pooler_type": "cls_pooler"},  # nllb-clip-base's
}
"""What follows each encoder."""


@cache
def text_config(family: str) -> dict[str, Any]:
    """``text_cfg`` of a model configuration with an encoder; the files stay until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="cpt-encoder-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_encoder(folder, family)
    write_tokenizer(folder, pad=0 if family == "bert" else 1)
    return {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), **ENCODERS[family]}


def write_encoder(folder: Path, kind: str, **others: Any) -> None:
    """Write the config.json of an encoder of a model type."""
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        leave_out("needs transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    if kind == "m2m_100":
        sizes = {
            f"{half}_{name}": value
            for half in ("encoder", "decoder")
            for name, value in (("layers", 3), ("attention_heads", 2), ("ffn_dim", 48))
        } | {"d_model": 32}
    pad = {"pad_token_id": 0 if kind == "bert" else 1}
    shared = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "architectures": [kind]}
    CONFIG_MAPPING[kind](**shared | sizes | pad | others).save_pretrained(folder)


def write_tokenizer(folder: Path, pad: int = 1, form: str = "<s> $A </s>", **options: Any) -> None:
    """Write a tokenizer of a few words and of the letters of all others.

    Args:
        pad: id of the padding, 0 or 1; the start token has the other.
        form: what a text becomes.
        options: of the tokenizer.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>"] if pad else ["<pad>", "<s>"]
    letters = string.ascii_letters + string.digits
    words = [*special, "</s>", "<unk>", "photo", "of", *letters, *(f"##{x}" for x in letters), *".,-'/"]
    made = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = BertPreTokenizer()
    known = [(word, words.index(word)) for word in ("<s>", "</s>")]
    made.post_processor = TemplateProcessing(single=form, special_tokens=known)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    options = {"padding_side": "right"} | names | options
    PreTrainedTokenizerFast(tokenizer_object=made, **options).save_pretrained(folder)
