"""Small checkpoints of every supported family, made by stock transformers with random weights."""

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

FAMILIES = ("bert", "roberta", "klue", "xlm-roberta", "camembert")
# Odd on purpose: nothing is a power of two, a multiple of another, or equal to another.
SIZES = {"vocab_size": 1013, "hidden_size": 120, "num_hidden_layers": 3, "num_attention_heads": 5,
         "intermediate_size": 212, "max_position_embeddings": 45}
SMALL = {"vocab_size": 403, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 40, "max_position_embeddings": 30}
TEXTS = (
    "the quick brown fox jumps over the lazy dog", "a model of the language is trained on the texts of a domain",
    "the dog and the fox read a text", "아버지가 방에 들어가신다", "영화가 정말 재미있다", "the language of the fox",
)
_STEMS = {"bert": "Bert", "roberta": "Roberta", "klue": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_KLUE_SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def tokenizer(family: str) -> Any:
    """A tokenizer of the class that the family uses, of at most 400 tokens."""
    if family in ("bert", "klue"):
        specials = _BERT_SPECIALS if family == "bert" else _KLUE_SPECIALS
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.train_from_iterator(TEXTS, trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=list(specials), show_progress=False))
        return transformers.BertTokenizer(vocab=backend.get_vocab(), do_lower_case=False)
    if family == "roberta":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.train_from_iterator(TEXTS, trainers.BpeTrainer(
            vocab_size=330, special_tokens=list(_ROBERTA_SPECIALS), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        state = eval_json(backend.to_str())["model"]
        return transformers.RobertaTokenizer(vocab=state["vocab"], merges=[tuple(merge) for merge in state["merges"]])
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.train_from_iterator(TEXTS, trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(_ROBERTA_SPECIALS), unk_token="<unk>", show_progress=False))
    vocab = [tuple(entry) for entry in eval_json(backend.to_str())["model"]["vocab"]]
    return getattr(transformers, _STEMS[family] + "Tokenizer")(vocab=vocab)
