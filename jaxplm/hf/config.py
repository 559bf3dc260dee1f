"""Convert config.json of a transformers checkpoint to `EncoderConfig` and back, and refuse what is not supported."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxplm.errors import UserError
from jaxplm.hf.config_fields import EXTENSION_FIELDS, check_fields, shown
from jaxplm.hf.families import FAMILIES, Family, family_of, known_families
from jaxplm.nn import EncoderConfig, ExtensionConfig

# model_type of an encoder with exBERT's extension. transformers does not know the name, so it refuses the directory instead
# of loading half of the model. `base_model_type` names the family of the base, `extension` holds the sizes of the extension,
# and `vocab_size` counts all tokens: a class that is told to load the directory anyway finds a table of another size.
EXTENDED = "jaxplm-exbert"

# Field of config.json → field of `EncoderConfig`.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn_width",
    "max_position_embeddings": "max_positions",
}
_DROPOUT_RATES = {"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"}

# Fields about where a checkpoint came from or which task it was for. They would be wrong in an export.
_NOT_EXPORTED = (
    "_name_or_path", "name_or_path", "torch_dtype", "transformers_version", "id2label", "label2id",
    "num_labels", "problem_type", "finetuning_task", "task_specific_params", "tokenizer_class", "base_model_type", "extension",
)


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> EncoderConfig:
    """Return the `EncoderConfig` that a parsed config.json describes.

    `pooler` is False in the result, because config.json does not say whether the weights include one.

    Args:
      hf_config: the parsed file. Fields for which transformers has a default (`layer_norm_eps`, `pad_token_id`, ...) may
        be absent. The sizes may not, because they do not follow from the shapes of the weights (the number of heads).
      source: the name of the checkpoint in messages.

    Raises:
      UserError: a model type that is not in the table of families; options that this encoder does not compute, all of
        them named at once; or fields that are missing or have values that they cannot have, all of these named at once.
    """
    family = _family(hf_config, source)
    if unsupported := _unsupported(hf_config):
        raise UserError(f"{source}: not supported: " + "; ".join(unsupported))
    check_fields(hf_config, source)
    sizes = _sizes(hf_config, source)
    extension = _extension_from(hf_config, source) if hf_config["model_type"] == EXTENDED else None
    if extension:
        sizes["vocab_size"] -= extension.tokens
    pad_id = hf_config.get("pad_token_id")
    if pad_id is None:
        pad_id = family.default_pad_id
    if pad_id >= hf_config["vocab_size"]:
        size = hf_config["vocab_size"]
        raise UserError(f"{source}: config.json: pad_token_id {pad_id} is not below vocab_size {size}")
    offset = family.position_offset(pad_id)
    sizes["max_positions"] -= offset
    if sizes["max_positions"] < 1:
        raise UserError(f"{source}: max_position_embeddings {hf_config['max_position_embeddings']} leaves no position after the"
                        f" {offset} that {family.model_type} does not use")
    return family.encoder_config(
        pad_id, **sizes, pooler=False, pair_head=False,
        token_types=hf_config.get("type_vocab_size", 2),
        norm_eps=float(hf_config.get("layer_norm_eps", 1e-12)),
        init_std=float(hf_config.get("initializer_range", 0.02)),
        dropout=float(hf_config.get("hidden_dropout_prob", 0.1)),
        attention_dropout=float(hf_config.get("attention_probs_dropout_prob", 0.1)),
        extension=extension,
    )


def _family(hf_config: Mapping[str, Any], source: str) -> Family:
    """Return the family of a config.json, or of the base if the model has an extension."""
    model_type = hf_config.get("model_type")
    if model_type == EXTENDED:
        model_type = hf_config.get("base_model_type")
    if model_type is None:
        raise UserError(f'{source}: config.json has no "model_type"; add it (one of {known_families()})')
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(f"{source}: model_type {shown(model_type)} is not supported; supported: {known_families()}")
    return FAMILIES[model_type]


def _sizes(hf_config: Mapping[str, Any], source: str) -> dict[str, int]:
    """Return the sizes by their names in `EncoderConfig`; raise UserError for those that contradict each other."""
    sizes: dict[str, int] = {our_name: hf_config[name] for name, our_name in _SIZES.items()}
    if sizes["width"] % sizes["heads"]:
        raise UserError(f"{source}: hidden_size {sizes['width']} is not a multiple of num_attention_heads {sizes['heads']}")
    return sizes


def _extension_from(hf_config: Mapping[str, Any], source: str) -> ExtensionConfig:
    """Return the sizes under "extension"; raise UserError if they are not what `config_to_hf` writes."""
    extension = hf_config.get("extension")
    given: dict[str, Any] = extension if isinstance(extension, dict) else {}
    wrong = any(not field.takes(given.get(name)) for name, field in EXTENSION_FIELDS.items())
    if wrong or given["width"] % given["heads"] or given["tokens"] >= hf_config["vocab_size"]:
        raise UserError(f'{source}: config.json: "extension" does not describe one: {shown(extension)}')
    return ExtensionConfig(given["tokens"], given["width"], given["heads"], given["ffn_width"], float(given["gate_bias"]))


def _unsupported(hf_config: Mapping[str, Any]) -> list[str]:
    """Return the options under which the same weights would compute something else, one description each."""
    found = []
    if (act := hf_config.get("hidden_act", "gelu")) != "gelu":
        found.append(f"hidden_act {shown(act)} (only 'gelu', the erf form, is)")
    if (positions := hf_config.get("position_embedding_type") or "absolute") != "absolute":
        found.append(f"position_embedding_type {shown(positions)} (only 'absolute' is)")
    decoding = ("is_decoder", "add_cross_attention")
    found += [f"{flag} true (only encoders are)" for flag in decoding if hf_config.get(flag)]
    if hf_config.get("quantization_config"):
        found.append("quantization_config (quantized weights)")
    if hf_config.get("auto_map"):
        found.append("auto_map (code that comes with a checkpoint is never run)")
    if hf_config.get("embedding_size", hf_config.get("hidden_size")) != hf_config.get("hidden_size"):
        found.append("embedding_size other than hidden_size")
    return found


def config_to_hf(config: EncoderConfig, hf_config: Mapping[str, Any], tokenizer: Any, *, architecture: str,
                 dtype: str, task: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return config.json for an export: that of the checkpoint which training started from, brought up to date.

    Sizes come from `config`. Dropout rates in `hf_config` are kept, because a rate chosen for one run should not apply
    to later fine-tuning of the export. With an empty `hf_config` (a model trained from scratch), everything comes from
    `config` and the tokenizer's special ids.

    Args:
      config: the model.
      hf_config: config.json of the checkpoint; {} for a new model.
      tokenizer: transformers' fast tokenizer.
      architecture: what follows "For" in the name of transformers' class; empty for the bare encoder.
      dtype: of the weights.
      task: further fields, such as labels.
    """
    family = family_of(config.model_type)
    out = {key: value for key, value in hf_config.items() if key not in _NOT_EXPORTED}
    out |= {name: getattr(config, our_name) for name, our_name in _SIZES.items()}
    out |= {name: out.get(name, getattr(config, our_name)) for name, our_name in _DROPOUT_RATES.items()}
    for alias, role in family.role_aliases.items():
        out.setdefault(f"{alias}_token_id", getattr(tokenizer, f"{role}_token_id"))
    out |= {
        "architectures": [family.class_stem + (f"For{architecture}" if architecture else "Model")],
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
