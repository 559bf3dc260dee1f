"""config.json of a transformers checkpoint ↔ `EncoderConfig`, and what of it is supported."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxplm.errors import UserError
from jaxplm.nn.config import EncoderConfig, ExtensionConfig

# transformers' model_type → the stem of its class names. All four share one architecture; the last
# three count positions from pad_id + 1, as fairseq did.
CLASS_STEMS = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}

# model_type of an encoder with exBERT's extension. transformers knows none of that name, so that it refuses the directory
# and does not load half of the model. `base_model_type` says whose extension it is, `extension` holds its sizes, and
# `vocab_size` counts all tokens: a class that is told to load the directory anyway finds a table of another size.
EXTENDED = "jaxplm-exbert"

_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn_width",
    "max_position_embeddings": "max_positions",
}
_RATES = {"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"}

# Belong to the place or the task that a checkpoint came from, not to the encoder: wrong in an export.
_NOT_EXPORTED = (
    "_name_or_path", "name_or_path", "torch_dtype", "transformers_version", "id2label", "label2id",
    "num_labels", "problem_type", "finetuning_task", "task_specific_params", "tokenizer_class", "base_model_type", "extension",
)


def is_roberta(model_type: str) -> bool:
    """Whether positions start after the padding id and the MLM head bears RoBERTa's names."""
    return model_type != "bert"


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> EncoderConfig:
    """`EncoderConfig` of a parsed config.json, which does not say whether the weights have a pooler: False.

    Args:
      hf_config: the parsed file. Fields that transformers gives a default (`layer_norm_eps`,
        `pad_token_id`, ...) may be absent; the sizes may not, because nothing else tells the heads.
      source: how messages call the checkpoint.

    Raises:
      UserError: an architecture or option that this encoder does not compute, all of them named at
        once; or missing and impossible sizes.
    """
    kind = hf_config.get("model_type")
    extended = kind == EXTENDED
    if extended:
        kind = hf_config.get("base_model_type")
    supported = ", ".join(CLASS_STEMS)
    if kind is None:
        raise UserError(f'{source}: config.json has no "model_type"; add it (one of {supported})')
    if kind not in CLASS_STEMS:
        raise UserError(f"{source}: model_type {kind!r} is not supported (one of {supported} is)")
    if unsupported := _unsupported(hf_config):
        raise UserError(f"{source}: not supported: " + "; ".join(unsupported))

    sizes: dict[str, int] = {}
    wrong = []
    for name, ours in _SIZES.items():
        value = hf_config.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            wrong.append(f"{name} is {value!r}" if name in hf_config else f"no {name}")
        else:
            sizes[ours] = value
    if wrong:
        raise UserError(f"{source}: config.json does not describe a model: " + ", ".join(wrong))
    if sizes["width"] % sizes["heads"]:
        raise UserError(f"{source}: hidden_size {sizes['width']} is not a multiple of "
                        f"num_attention_heads {sizes['heads']}")

    extension = _extension_from(hf_config, source) if extended else None
    if extension:
        sizes["vocab_size"] -= extension.tokens
    pad_id = hf_config.get("pad_token_id")
    if pad_id is None:
        pad_id = 1 if is_roberta(kind) else 0
    offset = pad_id + 1 if is_roberta(kind) else 0
    sizes["max_positions"] -= offset
    if sizes["max_positions"] < 1:
        raise UserError(f"{source}: max_position_embeddings {hf_config['max_position_embeddings']} leaves no "
                        f"position after {kind}'s offset of {offset}")
    return EncoderConfig(
        model_type=kind, **sizes, position_offset=offset, pad_id=pad_id, pooler=False, pair_head=False,
        token_types=hf_config.get("type_vocab_size", 2),
        norm_eps=float(hf_config.get("layer_norm_eps", 1e-12)),
        init_std=float(hf_config.get("initializer_range", 0.02)),
        dropout=float(hf_config.get("hidden_dropout_prob", 0.1)),
        attention_dropout=float(hf_config.get("attention_probs_dropout_prob", 0.1)),
        extension=extension, head_dropout_first=is_roberta(kind),
    )


def _extension_from(hf_config: Mapping[str, Any], source: str) -> ExtensionConfig:
    """The sizes under "extension". Raises UserError for what `config_to_hf` does not write."""
    try:
        given = {name: value for name, value in hf_config["extension"].items() if type(value) is int or name == "gate_bias"}
        extension = ExtensionConfig(**{**given, "gate_bias": float(given["gate_bias"])})
        sizes = (extension.tokens, extension.width, extension.heads, extension.ffn_width)
        if min(sizes) < 1 or extension.width % extension.heads or extension.tokens >= hf_config["vocab_size"]:
            raise ValueError("impossible sizes")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f'{source}: config.json: "extension" does not describe one: {hf_config.get("extension")!r}') from None
    return extension


def _unsupported(hf_config: Mapping[str, Any]) -> list[str]:
    """Options that would make the same weights compute something else."""
    found = []
    if (act := hf_config.get("hidden_act", "gelu")) != "gelu":
        found.append(f"hidden_act {act!r} (only 'gelu', the erf form, is)")
    if (positions := hf_config.get("position_embedding_type") or "absolute") != "absolute":
        found.append(f"position_embedding_type {positions!r} (only 'absolute' is)")
    decoding = ("is_decoder", "add_cross_attention")
    found += [f"{flag} true (only encoders are)" for flag in decoding if hf_config.get(flag)]
    if hf_config.get("quantization_config"):
        found.append("quantization_config (quantized weights)")
    if hf_config.get("auto_map"):
        found.append("auto_map (code that comes with the checkpoint is never run)")
    if hf_config.get("embedding_size", hf_config.get("hidden_size")) != hf_config.get("hidden_size"):
        found.append("embedding_size other than hidden_size")
    return found


def config_to_hf(config: EncoderConfig, hf_config: Mapping[str, Any], tokenizer: Any, *, architecture: str,
                 dtype: str, task: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config.json of an export: that of the checkpoint which training began with, brought up to date.

    `architecture` is what comes after "For" in the name of transformers' class, empty for the encoder alone; `task`
    are further fields (labels and the like).

    Sizes come from `config`. Dropout rates that `hf_config` has are kept: a rate chosen for one training
    run should not follow the model into whatever it is fine-tuned on later. With an empty `hf_config` (a
    model trained from scratch) everything comes from `config` and the tokenizer's special ids.
    """
    out = {key: value for key, value in hf_config.items() if key not in _NOT_EXPORTED}
    out |= {name: getattr(config, ours) for name, ours in _SIZES.items()}
    out |= {name: out.get(name, getattr(config, ours)) for name, ours in _RATES.items()}
    if is_roberta(config.model_type):
        out.setdefault("bos_token_id", tokenizer.cls_token_id)
        out.setdefault("eos_token_id", tokenizer.sep_token_id)
    out |= {
        "architectures": [CLASS_STEMS[config.model_type] + (f"For{architecture}" if architecture else "Model")],
        "model_type": config.model_type,
        "max_position_embeddings": config.max_positions + config.position_offset,
        "type_vocab_size": config.token_types or max(1, out.get("type_vocab_size", 1)),
        "pad_token_id": config.pad_id,
        "layer_norm_eps": config.norm_eps,
        "initializer_range": config.init_std,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "dtype": dtype,
        **(task or {}),
    }
    if config.extension:
        out |= {
            "architectures": ["JaxplmExbert" + (f"For{architecture}" if architecture else "Model")],
            "model_type": EXTENDED,
            "base_model_type": config.model_type,
            "vocab_size": config.total_vocab,
            "extension": dataclasses.asdict(config.extension),
        }
    return dict(sorted(out.items()))
