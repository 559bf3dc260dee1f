"""Model directories with random damage in one of their files; see `benchmarks/fuzz_models.py`."""

import copy
import json
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from jaxplm import hf
from jaxplm.errors import UserError
from jaxplm.tasks.kinds import KINDS

WIDTH, BLOCKS, INNER, POSITIONS, CLASSES = 8, 2, 12, 20, 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *"abcdefghij", *(f"##{letter}" for letter in "abcdefghij"), "the", "한"]
OWN_HEAD = {"head/dense/kernel": (WIDTH, WIDTH), "head/dense/bias": (WIDTH,), "head/mix/gamma": (), "head/mix/weights": (BLOCKS + 1,),
            "head/out/kernel": (WIDTH, CLASSES), "head/out/bias": (CLASSES,)}
VALUES = [None, True, False, 0, 1, -1, 2, 3, 0.5, -0.5, 2.0, float("nan"), float("inf"), 10**6, 10**9, 2**31, 2**63, 10**40, "", "x",
          "12", "\ud800", "\x00", "../../a.safetensors", "/dev/zero", [], [1], ["a"], {}, {"a": 1}, [[[[[]]]]], "relu", "roberta",
          "jaxplm-exbert", "regression", ["BertForTokenClassification"], ["BertForQuestionAnswering"], ["BertForSequenceClassification"]]
EXTRA = ["auto_map", "quantization_config", "extension", "base_model_type", "num_labels", "embedding_size", "is_decoder",
         "extra_special_tokens", "additional_special_tokens", "added_tokens_decoder", "truncation_side", "padding_side"]
BYTES = [b"\x00", b"\xff", b"{", b"}", b"]", b'"', b"null", b"NaN", b"1e999", b"9" * 5000, b"[" * 50_000, b'{"a":' * 50_000]


def described() -> dict[str, Any]:
    """Return a config.json with every field that is read."""
    return {"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": len(VOCABULARY), "hidden_size": WIDTH,
            "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2, "pad_token_id": 0, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02,
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "classifier_dropout": None, "tie_word_embeddings": True,
            "id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "single_label_classification"}


def tokenizer() -> dict[str, Any]:
    """Return a tokenizer.json of BERT's form."""
    def token(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    special = {name: {"id": name, "ids": [SPECIAL.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": name, **flags} for i, name in enumerate(SPECIAL)],
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                           "lowercase": False},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing", "special_tokens": special,
                               "single": [token("[CLS]"), first, token("[SEP]")],
                               "pair": [token("[CLS]"), first, token("[SEP]"), second, token("[SEP]")]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                      "vocab": {name: i for i, name in enumerate(VOCABULARY)}}}


def settings() -> dict[str, Any]:
    """Return a tokenizer_config.json."""
    roles = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    return {"tokenizer_class": "BertTokenizer", "model_max_length": POSITIONS, "do_lower_case": False, **roles}


def own_head() -> dict[str, Any]:
    """Return a jaxplm.json."""
    head = {"kind": "classify", "classes": CLASSES, "pooling": "mean", "layers": "mix", "body": "", "body_width": 8, "dropout": 0.1}
    return {"version": "0", "head": head, "labels": ["a", "b", "c"]}


def tensors(task: bool) -> dict[str, np.ndarray]:
    """Return the tensors of a masked language model or of a classifier."""
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH)}

    def affine(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    affine("bert.embeddings.LayerNorm", WIDTH)
    for block in (f"bert.encoder.layer.{i}" for i in range(BLOCKS)):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            affine(f"{block}.{part}", WIDTH, WIDTH)
        affine(f"{block}.attention.output.LayerNorm", WIDTH)
        affine(f"{block}.intermediate.dense", INNER, WIDTH)
        affine(f"{block}.output.dense", WIDTH, INNER)
        affine(f"{block}.output.LayerNorm", WIDTH)
    if task:
        affine("bert.pooler.dense", WIDTH, WIDTH)
        affine("classifier", CLASSES, WIDTH)
    else:
        affine("cls.predictions.transform.dense", WIDTH, WIDTH)
        affine("cls.predictions.transform.LayerNorm", WIDTH)
        shapes["cls.predictions.bias"] = (len(VOCABULARY),)
    drawn = np.random.default_rng(0)
    return {name: drawn.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Case:
    """One damaged directory: what was damaged, and how it is loaded."""

    damaged: str
    loaded_as: str


class Mutator:
    """Writes damaged model directories; a function of its seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._weights = {task: save(tensors(task)) for task in (False, True)}

    def write(self, directory: Path) -> Case:
        """Write a directory with one damaged file, and say which."""
        rng = self._random
        form = rng.choice(["mlm", "mlm", "task", "own"])
        config = described()
        if form == "task":
            config["architectures"] = ["BertForSequenceClassification"]
        files: dict[str, Any] = {"config.json": config, "tokenizer.json": tokenizer(), "tokenizer_config.json": settings()}
        if form == "own":
            files["jaxplm.json"] = own_head()
        weights = self._weights[form == "task"]
        sharded = rng.random() < 0.1
        if sharded:
            files["model.safetensors.index.json"] = {"weight_map": dict.fromkeys(tensors(form == "task"), "a.safetensors")}
        damaged = rng.choice([*files, "config.json", "config.json", "weights", "weights", "missing"])
        written: dict[str, bytes] = {}
        for name, content in files.items():
            changed = self._tree(content, rng.choice([1, 1, 2, 3])) if name == damaged and rng.random() < 0.8 else content
            data = json.dumps(changed).encode("utf-8", "surrogatepass")
            written[name] = self._bytes(data) if name == damaged and changed is content else data
        written["a.safetensors" if sharded else "model.safetensors"] = self._safetensors(weights) if damaged == "weights" else weights
        if form == "own":
            written["head.safetensors"] = save({name: np.zeros(shape, np.float32) for name, shape in OWN_HEAD.items()})
        if damaged == "missing":
            written.pop(rng.choice(list(written)))
        for name, data in written.items():
            (directory / name).write_bytes(data)
        return Case(damaged, rng.choice(["model", "model", "mlm", "pairs", "new head", "model" if form == "mlm" else "task"]))

    def _tree(self, tree: Any, changes: int) -> Any:
        """Return a copy of a JSON tree with values replaced, removed or added at random places."""
        tree = copy.deepcopy(tree)
        for _ in range(changes):
            node, rng = tree, self._random
            while True:
                keys = list(node) if isinstance(node, dict) else range(len(node))
                if not keys:
                    break
                key = rng.choice(keys)
                if isinstance(node[key], (dict, list)) and rng.random() < 0.7:
                    node = node[key]
                    continue
                if rng.random() < 0.2 and isinstance(node, dict):
                    node[rng.choice(EXTRA)] = copy.deepcopy(rng.choice(VALUES))
                elif rng.random() < 0.2:
                    node.pop(key)
                else:
                    node[key] = copy.deepcopy(rng.choice(VALUES))
                break
        return tree if self._random.random() < 0.97 else copy.deepcopy(self._random.choice(VALUES))

    def _bytes(self, data: bytes) -> bytes:
        """Return bytes with some replaced, inserted or cut off."""
        rng, changed = self._random, bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 10])):
            place = rng.randrange(len(changed) + 1)
            kind = rng.randrange(4)
            if kind == 0 and changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            elif kind == 1:
                changed[place:place] = rng.choice(BYTES)
            elif kind == 2:
                del changed[place : place + rng.randint(1, 40)]
            else:
                del changed[place:]
        return bytes(changed)

    def _safetensors(self, data: bytes) -> bytes:
        """Return a safetensors file with damage in its header, its values, or anywhere."""
        rng = self._random
        size = struct.unpack("<Q", data[:8])[0]
        header, values = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
        kind = rng.random()
        if kind < 0.15:
            length = rng.choice([0, 1, size - 1, size + 8, 10**8, 10**10, 2**63, 2**64 - 1])
            return struct.pack("<Q", length) + data[8:]
        if kind < 0.3:
            return self._bytes(data)
        if kind < 0.4:
            place = 4 * rng.randrange(len(values) // 4)
            values[place : place + 4] = struct.pack("<f", rng.choice([float("nan"), float("inf"), 1e38]))
        for _ in range(rng.choice([1, 1, 3])):
            name = rng.choice(list(header))
            field = rng.choice(["dtype", "shape", "data_offsets", "name", "gone", "copy"])
            if field == "gone":
                header.pop(name)
            elif field in ("name", "copy"):
                new = rng.choice(["x", "", "classifier.weight", "cls.predictions.decoder.bias", "bert.embeddings.position_ids"])
                header[new] = header[name] if field == "copy" else header.pop(name)
            elif isinstance(header[name], dict):
                header[name][field] = rng.choice([*VALUES, "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", [0, 0], [0, 32],
                                                  [-1], [2**40, 2**40], [8, 8], [8, 12], [10, 5], [0, 10**12], [WIDTH, 1]])
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + bytes(values)


LOADERS: dict[str, Callable[[str], Any]] = {
    "model": lambda path: hf.load_model(path, KINDS),
    "mlm": hf.load,
    "pairs": lambda path: hf.load(path, pairs=True),
    "task": lambda path: hf.load_task_model(path, KINDS),
    "new head": lambda path: hf.load_task_model(path, KINDS, KINDS["tag"].head_config(2)),
}
LONGEST = 2000  # characters of a message, the name of the directory included


def load_case(directory: Path, case: Case, export: Path) -> str:
    """Load a directory, use its tokenizer and write its export; return the message of a refusal, or "" where it is taken.

    Raises:
      whatever is raised other than UserError: a fault.
    """
    try:
        loaded = LOADERS[case.loaded_as](str(directory))
        loaded.tokenizer(["the 한 \u2603"], ["ab"], truncation=True, max_length=8, padding=True)
        if isinstance(loaded, hf.LoadedTask):
            labels = loaded.labels or (["a", "b"] if loaded.head.classes == 2 and loaded.kind.named_outputs else [])
            hf.save_task_model(export, loaded, loaded.params, labels)
        else:
            hf.save(export, loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config)
    except UserError as refusal:
        message = str(refusal)
        assert "\n" not in message and len(message) < LONGEST, f"a message of {len(message)} characters: {message[:200]}"
        message.encode(sys.stderr.encoding or "utf-8", "backslashreplace")
        return message
    return ""
