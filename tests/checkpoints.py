"""Small checkpoints of every supported family with random weights, in the files that stock transformers writes.

`save` writes them without PyTorch; `model` is transformers' own model, the reference of the slow tests.
"""

import functools
import importlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxplm import hf
from jaxplm.errors import UserError

FAMILIES = ("bert", "roberta", "klue", "xlm-roberta", "camembert")
# Odd on purpose: nothing is a power of two, a multiple of another, or equal to another.
SIZES = {"vocab_size": 1013, "hidden_size": 120, "num_hidden_layers": 3, "num_attention_heads": 5,
         "intermediate_size": 212, "max_position_embeddings": 45}
SMALL = {"vocab_size": 403, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 40, "max_position_embeddings": 30}
TEXTS = (
    "the quick brown fox jumps over the lazy dog", "a model of the language is trained on texts of a domain",
    "the dog and the fox read a text", "아버지가 방에 들어가신다", "영화가 정말 재미있다",
)


class _WhenUsed:
    """PyTorch, imported when a test first uses it: tests that are not slow run where it is not installed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("torch"), name)


torch: Any = _WhenUsed()

_STEMS = {"bert": "Bert", "roberta": "Roberta", "klue": "Roberta", "xlm-roberta": "XLMRoberta",
          "camembert": "Camembert"}
_TOKENIZERS = {"bert": "BertTokenizer", "roberta": "RobertaTokenizer", "klue": "BertTokenizer",
               "xlm-roberta": "XLMRobertaTokenizer", "camembert": "CamembertTokenizer"}
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_KLUE_SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


@functools.cache
def _trained(kind: str) -> dict[str, Any]:
    """Return the model part of a tokenizer.json; trained once per process, because training breaks ties at random."""
    backend = Tokenizer(models.BPE() if kind == "BPE" else models.Unigram())
    options: dict[str, Any] = {"special_tokens": list(_ROBERTA_SPECIALS), "show_progress": False}
    if kind == "BPE":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=330, **options)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", **options)
    backend.train_from_iterator(TEXTS, trainer)
    return json.loads(backend.to_str())["model"]


def tokenizer(family: str) -> Any:
    """Return a tokenizer of the class that the family uses, of at most 400 tokens."""
    made = getattr(transformers, _TOKENIZERS[family])
    if family in ("bert", "klue"):
        letters = sorted(set("".join(TEXTS)) - {" "})
        words = sorted(set(" ".join(TEXTS).split()))
        specials = _BERT_SPECIALS if family == "bert" else _KLUE_SPECIALS
        tokens = [*specials, *letters, *(f"##{letter}" for letter in letters), *words]
        return made(vocab={token: i for i, token in enumerate(dict.fromkeys(tokens))}, do_lower_case=False)
    if family == "roberta":
        state = _trained("BPE")
        return made(vocab=state["vocab"], merges=[tuple(merge) for merge in state["merges"]])
    return made(vocab=[tuple(entry) for entry in _trained("Unigram")["vocab"]])


def hf_config(family: str, sizes: dict[str, int] = SMALL, **options: Any) -> Any:
    """Return transformers' configuration of a family's model."""
    types = {} if family == "bert" else {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return getattr(transformers, _STEMS[family] + "Config")(**{**sizes, **types, **options})


def model(family: str, sizes: dict[str, int] = SMALL, head: str = "ForMaskedLM", **options: Any) -> Any:
    """Return a stock model in evaluation mode; `head` is the end of transformers' class name.

    Every parameter is drawn, biases and LayerNorms too, and large enough for attention to be far from uniform:
    with the usual initialisation much of a model could be wrong and hardly show.
    """
    made = getattr(transformers, _STEMS[family] + head)(hf_config(family, sizes, **options)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            centre, spread = (1.0, 0.2) if "norm.weight" in name.lower() else (0.0, 0.12)
            parameter.copy_(centre + spread * noise)
    return made


def tensors(config: Any, spread: float = 0.12, norm_spread: float = 0.2, bias_spread: float = 0.12) -> dict[str, np.ndarray]:
    """Return a masked language model's tensors by the names that `save_pretrained` gives them; drawn as in `model`."""
    bert = config.model_type == "bert"
    base, width, inner = "bert" if bert else "roberta", config.hidden_size, config.intermediate_size
    embeddings = f"{base}.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{embeddings}.word_embeddings.weight": (config.vocab_size, width),
        f"{embeddings}.position_embeddings.weight": (config.max_position_embeddings, width),
        f"{embeddings}.token_type_embeddings.weight": (config.type_vocab_size, width),
    }

    def affine(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    affine(f"{embeddings}.LayerNorm", width)
    for layer in range(config.num_hidden_layers):
        block = f"{base}.encoder.layer.{layer}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            affine(f"{block}.{name}", width, width)
        affine(f"{block}.attention.output.LayerNorm", width)
        affine(f"{block}.intermediate.dense", inner, width)
        affine(f"{block}.output.dense", width, inner)
        affine(f"{block}.output.LayerNorm", width)
    head, dense, norm = ("cls.predictions", "transform.dense", "transform.LayerNorm") if bert else ("lm_head", "dense", "layer_norm")
    affine(f"{head}.{dense}", width, width)
    affine(f"{head}.{norm}", width)
    shapes[f"{head}.bias"] = (config.vocab_size,)

    random = np.random.default_rng(0)
    drawn = {}
    for name, shape in shapes.items():
        noise = random.standard_normal(shape, np.float32)
        is_norm = "norm.weight" in name.lower()
        drawn[name] = np.float32(is_norm) + (norm_spread if is_norm else bias_spread if name.endswith(".bias") else spread) * noise
    return {name: tensor.astype(np.float32) for name, tensor in drawn.items()}


def save_masked_lm(directory: Path, config: Any, **spreads: float) -> Path:
    """Write config.json and model.safetensors of a masked language model as stock transformers does, without PyTorch."""
    config.architectures, config.dtype = [f"{type(config).__name__.removesuffix('Config')}ForMaskedLM"], "float32"
    config.save_pretrained(directory)
    save_file(tensors(config, **spreads), directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def save_classifier(directory: Path, config: Any) -> Path:
    """Write a BERT for sequence classification with the labels of `config`, without PyTorch."""
    config.architectures, config.dtype = ["BertForSequenceClassification"], "float32"
    config.save_pretrained(directory)
    encoder = {name: tensor for name, tensor in tensors(config).items() if not name.startswith("cls.")}
    random, width = np.random.default_rng(1), config.hidden_size
    shapes = {"bert.pooler.dense.weight": (width, width), "bert.pooler.dense.bias": (width,),
              "classifier.weight": (config.num_labels, width), "classifier.bias": (config.num_labels,)}
    heads = {name: np.float32(0.12) * random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_file(encoder | heads, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def save(directory: Path, family: str, made: Any = None, sizes: dict[str, int] = SMALL, **options: Any) -> Path:
    """Write a model and the family's tokenizer, as a stock user would; by default a masked language model of `sizes`."""
    if made is None:
        save_masked_lm(directory, hf_config(family, sizes, **options))
    else:
        made.save_pretrained(directory, **options)
    tokenizer(family).save_pretrained(directory)
    return directory


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what transformers logs as a warning or worse while the block runs."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)


def flat(tree, prefix=""):
    """Return {path: leaf} of nested dicts."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    inner = [flat(value, f"{prefix}/{key}") for key, value in tree.items()]
    return {path: leaf for leaves in inner for path, leaf in leaves.items()}


def assert_bitwise(found, expected):
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert found[path].tobytes() == leaf.tobytes(), path


def resave(loaded, directory, **options):
    return hf.save(directory, loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config, **options)


def rewrite(directory, change):
    """Let `change` edit the dict of tensors of a checkpoint."""
    tensors = load_file(directory / "model.safetensors")
    save_file(change(tensors) or tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def reconfigure(directory, **fields):
    file = directory / "config.json"
    content = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))
    return directory


def refused(directory) -> str:
    """Return the one line that loading a directory is refused with."""
    with pytest.raises(UserError) as caught:
        hf.load(str(directory))
    assert "\n" not in str(caught.value)
    return str(caught.value)
