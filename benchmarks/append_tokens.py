"""Measure and check what appending tokens to a tokenizer's model does.

    python benchmarks/append_tokens.py words --tokenizer=DIR --corpus=FILE --general=FILE[,FILE] [--count=300]
    python benchmarks/append_tokens.py list --tokenizer=DIR --vocabulary=vocab.txt
    python benchmarks/append_tokens.py resize --tokenizer=DIR [--model=DIR]

words: appends the tokens that `choose_tokens` finds in the corpus. It prints fertility before and after. Of 20,000
general sentences it counts those with a new token, and checks that all other pre-tokens have exactly their old ids. It
checks that stock transformers gives the same ids to 50,000 sentences of both.

list: appends the lines of a vocab.txt that the tokenizer lacks. It prints how many of them no text can give, for which
reasons, with examples. Then it prints how long `AutoTokenizer.from_pretrained` takes with none of the others, with
5,000 and with all (medians of 3).

resize: adds 300 rows to a masked LM (a RoBERTa of 2 layers with random weights if no model is given), exports it and
loads it in stock transformers. It prints shapes, whether the decoder is tied, and how far logits differ.
"""

import argparse
import collections
import itertools
import json
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxplm import hf
from jaxplm.data.sources.texts import open_texts
from jaxplm.hf.tokenizer import load_tokenizer, save_tokenizer
from jaxplm.nn import abstract_model, merge_params
from jaxplm.vocab.append import KNOWN, ExtendedTokenizer, append_tokens
from jaxplm.vocab.choose import choose_tokens
from jaxplm.vocab.measure import measure, remeasure
from jaxplm.vocab.reach import Reach
from jaxplm.vocab.resize import resize_embeddings

_BATCH = 2048
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def sentences(spec: str, most: int) -> list[str]:
    """Return the first `most` sentences of a corpus, cut after punctuation."""
    every = (sentence for text in open_texts(spec) for sentence in _SENTENCE_END.split(text) if sentence.strip())
    return list(itertools.islice(every, most))


def batches(texts: list[str]) -> Iterator[list[str]]:
    return (texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH))


def save(tokenizer: Any, directory: Path) -> Path:
    """Write a tokenizer with a config.json from which AutoTokenizer knows its class."""
    directory.mkdir(exist_ok=True)
    bert = type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece"
    (directory / "config.json").write_text(json.dumps({"model_type": "bert" if bert else "roberta"}))
    save_tokenizer(tokenizer, directory, 512)
    return directory


def loading_seconds(directory: Path) -> float:
    """Return how long stock transformers takes to load a tokenizer, median of 3."""
    from transformers import AutoTokenizer

    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        AutoTokenizer.from_pretrained(directory)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def compare_old_ids(tokenizer: Any, appended: ExtendedTokenizer, texts: list[str]) -> None:
    """Check that each pre-token without a new id has its old ids, and print the counts."""
    touched, pretokens, changed, new_ids = 0, 0, [], 0
    for batch in batches(texts):
        before, after = (t.backend_tokenizer.encode_batch(batch, add_special_tokens=False) for t in (tokenizer, appended.tokenizer))
        for text, one, other in zip(batch, before, after, strict=True):
            if one.ids == other.ids:
                pretokens += len(set(one.word_ids))
                continue
            old, new = (by_pretoken(encoding) for encoding in (one, other))
            assert old.keys() == new.keys()
            fresh = {word for word, ids in new.items() if max(ids) >= appended.old_size}
            touched += bool(fresh)
            pretokens += len(old) - len(fresh)
            new_ids += sum(index >= appended.old_size for index in other.ids)
            changed += [text for word in old.keys() - fresh if old[word] != new[word]]
    print(f"{len(texts):,} general sentences: {touched:,} hold a new token ({new_ids:,} in all); of the {pretokens:,} pre-tokens "
          f"without one {len(changed):,} have other ids than before")
    assert not changed, changed[:3]


def by_pretoken(encoding: Any) -> dict[int, list[int]]:
    """Return the ids of each pre-token."""
    words = collections.defaultdict(list)
    for word, index in zip(encoding.word_ids, encoding.ids, strict=True):
        words[word].append(index)
    return words


def compare_stock(appended: ExtendedTokenizer, directory: Path, texts: list[str]) -> None:
    """Check that stock transformers gives the same ids from the exported files."""
    from transformers import AutoTokenizer

    stock = AutoTokenizer.from_pretrained(directory)
    different = 0
    for batch in batches(texts):
        pairs = zip(stock(batch)["input_ids"], appended.tokenizer(batch)["input_ids"], strict=True)
        different += sum(one != other for one, other in pairs)
    print(f"stock {type(stock).__name__} from the export: different ids in {different:,} of {len(texts):,} sentences")
    assert not different


def words(options: argparse.Namespace) -> None:
    """Append the tokens that a corpus needs most."""
    tokenizer, _ = load_tokenizer(Path(options.tokenizer), options.tokenizer)
    before = measure(open_texts(options.corpus), tokenizer)
    chosen = choose_tokens(before, tokenizer, options.count)
    start = time.perf_counter()
    appended = append_tokens(tokenizer, chosen.tokens)
    seconds = time.perf_counter() - start
    after = remeasure(before, appended.tokenizer)
    print(f"{options.tokenizer}: {len(appended.tokens):,} tokens appended in {seconds:.2f} s, {len(appended.helpers):,} of them helpers, "
          f"{appended.merges:,} merges, {len(appended.refused):,} refused")
    print(f"  such as {', '.join(appended.tokens[:12])}")
    print(f"  helpers: {', '.join(appended.helpers[:12]) or 'none'}; refused: {dict(itertools.islice(appended.refused.items(), 5))}")
    print(f"fertility on {options.corpus}: {before.fertility:.4f} → {after.fertility:.4f} tokens per word; "
          f"words kept whole: {before.whole_share:.2%} → {after.whole_share:.2%}; "
          f"tokens: {before.totals.tokens:,} → {after.totals.tokens:,}")
    general = sentences(options.general, 20_000)
    compare_old_ids(tokenizer, appended, general)
    with tempfile.TemporaryDirectory() as scratch:
        directory = save(appended.tokenizer, Path(scratch))
        print(f"files: {', '.join(sorted(file.name for file in directory.iterdir()))}")
        compare_stock(appended, directory, sentences(options.corpus, 30_000) + general)


def missing(tokenizer: Any, path: str) -> list[str]:
    """Return the lines of a vocab.txt that are not in the tokenizer's vocabulary."""
    lines = Path(path).read_text("utf-8").split("\n")
    known = tokenizer.get_vocab()
    return [line for line in dict.fromkeys(lines) if line and line not in known]


def kind_of_reason(reason: str) -> str:
    """Return a reason without the token that it is about."""
    return re.sub(r":.*| into .*| to .*(?= by)| as .*| the \d+ characters.*|token '.*'", "", reason)


def listed(options: argparse.Namespace) -> None:
    """Append the entries of another vocabulary."""
    tokenizer, _ = load_tokenizer(Path(options.tokenizer), options.tokenizer)
    lines = missing(tokenizer, options.vocabulary)
    start = time.perf_counter()
    reach = Reach(tokenizer)
    refused = {line: reason for line in lines if (reason := reach.reason(line)) is not None}
    seconds = time.perf_counter() - start
    print(f"{options.vocabulary}: {len(lines):,} entries that {options.tokenizer} lacks; {len(refused):,} "
          f"({len(refused) / len(lines):.2%}) can be given by no text (found in {seconds:.2f} s)")
    groups = collections.defaultdict(list)
    for token, reason in refused.items():
        groups[kind_of_reason(reason)].append(token)
    for reason, tokens in sorted(groups.items(), key=lambda group: -len(group[1])):
        some = random.Random(0).sample(tokens, min(6, len(tokens)))
        print(f"  {len(tokens):6,}  {reason}: " + "; ".join(f"{token!r} {refused[token]}" for token in some))
    good = [line for line in lines if line not in refused]
    with tempfile.TemporaryDirectory() as scratch:
        for count in (0, 5000, len(good)):
            start = time.perf_counter()
            appended = append_tokens(tokenizer, good[:count])
            seconds = time.perf_counter() - start
            assert not set(appended.refused.values()) - {KNOWN}
            loading = loading_seconds(save(appended.tokenizer, Path(scratch) / str(count)))
            print(f"{len(appended.tokens):6,} appended in {seconds:.2f} s; AutoTokenizer.from_pretrained: {loading:.3f} s (median of 3)")


def resize(options: argparse.Namespace) -> None:
    """Add rows to a model and compare it with stock transformers."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer, RobertaConfig, RobertaForMaskedLM

    with tempfile.TemporaryDirectory() as scratch:
        source = options.model or f"{scratch}/source"
        tokenizer, _ = load_tokenizer(Path(options.tokenizer), options.tokenizer)
        if not options.model:
            torch.manual_seed(0)
            config = RobertaConfig(vocab_size=len(tokenizer), hidden_size=120, num_hidden_layers=2, num_attention_heads=4,
                                   intermediate_size=480, max_position_embeddings=130, type_vocab_size=1, layer_norm_eps=1e-5)
            random_model = RobertaForMaskedLM(config)
            torch.nn.init.normal_(random_model.lm_head.bias)
            random_model.save_pretrained(source)
            save_tokenizer(tokenizer, Path(source), 128)
        loaded = hf.load(source)
        mark = "Ġ" if type(tokenizer.backend_tokenizer.model).__name__ == "BPE" else ""
        numbers = random.Random(0)
        tokens = ["".join(numbers.choices("abcdefghiklmnoprstuvwxyz", k=7)) for _ in range(options.count)]
        appended = append_tokens(loaded.tokenizer, [mark + token for token in tokens])
        size = appended.old_size + len(appended.tokens)
        params, config = resize_embeddings(loaded.params, loaded.config, size, appended.pieces)
        target = hf.save(f"{scratch}/target", config, params, appended.tokenizer, loaded.hf_config)
        old, new = (AutoModelForMaskedLM.from_pretrained(path).eval() for path in (source, target))
        stock = AutoTokenizer.from_pretrained(target)
        decoder = new.get_output_embeddings()
        print(f"{type(new).__name__}: {loaded.config.vocab_size:,} → {size:,} tokens; "
              f"table {tuple(new.get_input_embeddings().weight.shape)}, decoder {tuple(decoder.weight.shape)}, "
              f"bias {tuple(decoder.bias.shape)}; tied: {decoder.weight is new.get_input_embeddings().weight}")
        inputs = stock([f"the {tokens[0]} of a patient and {tokens[1]}", "the quick brown fox"], padding=True, return_tensors="pt")
        fresh = inputs["input_ids"] >= appended.old_size
        real = inputs["attention_mask"].numpy() == 1
        with torch.no_grad():
            theirs = new(**inputs).logits.numpy()
            rest = {name: value[1:] for name, value in inputs.items()}
            before, after = old(**rest).logits.numpy()[..., : appended.old_size], theirs[1:, :, : appended.old_size]
        module = merge_params(abstract_model(config)[0], params)
        ours = np.asarray(module.mlm_logits(inputs["input_ids"].numpy(), inputs["attention_mask"].numpy()))
        print(f"new ids in the first text: {int(fresh[0].sum())}, in the second: {int(fresh[1].sum())}")
        print(f"logits in jaxplm and in transformers differ by at most {np.abs(ours - theirs)[real].max():.1e};"
              f" the largest is {np.abs(theirs).max():.1f}")
        print(f"logits of old ids for the second text, before and after, differ by at most {np.abs(before - after)[:, real[1]].max():.1e}")
        rows = new.get_input_embeddings().weight[: appended.old_size]
        print(f"old rows bitwise equal: {torch.equal(rows, old.get_input_embeddings().weight[: appended.old_size])}, "
              f"old biases: {torch.equal(decoder.bias[: appended.old_size], old.get_output_embeddings().bias[: appended.old_size])}")


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("words", "list", "resize"))
    for name in ("tokenizer", "corpus", "general", "vocabulary", "model"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args(None if arguments is None else list(arguments))
    {"words": words, "list": listed, "resize": resize}[options.what](options)


if __name__ == "__main__":
    main()
