"""Several sources in one run: exact shares, the same rows for any processes, general texts replayed or measured."""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from helpers import same, tiny_config, wordpiece
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assert_says, refuses
from test_pipeline import SPECIAL, Store, make_store, masking
from test_sentence_pairs import ENDS

from jaxplm import hf, nn
from jaxplm.config import Compute, Config, Data, Model, Train
from jaxplm.data.mlm.batches import MlmBatches
from jaxplm.data.mlm.mixture import MOST_ROWS, Mixture, MixtureOrder, divide_rows, replayed_rows
from jaxplm.data.mlm.pack import plan_rows
from jaxplm.data.mlm.rows import Plan
from jaxplm.data.mlm.sentence_pairs import plan_pairs
from jaxplm.data.order import RowOrder
from jaxplm.devices import sharding
from jaxplm.engine import loop as engine_loop
from jaxplm.engine.setup import prepare
from jaxplm.errors import UserError
from jaxplm.recipes.pretrain.checks import check
from jaxplm.recipes.pretrain.corpus import Corpus, load_corpus
from jaxplm.recipes.pretrain.job import Pretraining
from jaxplm.recipes.pretrain.sources import general_text

# One vocabulary per file, so that every token tells its source.
WORDS = {"one": "the cat dog sat ran on under mat", "two": "tree house river with and a small big",
         "general": "old new red green of to in was"}

sizes_st = st.lists(st.integers(1, 60), min_size=1, max_size=4)
weights_st = st.floats(1e-3, 1e3)


@st.composite
def mixtures(draw) -> tuple[list[int], list[int]]:
    """Rows of each source, and rows of each in an epoch."""
    sizes = draw(sizes_st)
    return sizes, draw(st.lists(st.integers(1, 80), min_size=len(sizes), max_size=len(sizes)))


@settings(deadline=None)
@given(st.integers(0, 2**40), st.lists(weights_st, min_size=1, max_size=5))
def test_rows_are_divided_exactly_but_for_rounding(total, weights):
    parts = divide_rows(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total * weight / sum(weights)) < 1 + 1e-12 * total


@settings(deadline=None)
@given(st.integers(1, 2**40), st.floats(0, 0.9))
def test_replayed_rows_are_their_share_of_all(total, share):
    replayed = replayed_rows(total, share)
    assert abs(replayed - share * (total + replayed)) <= 0.5 + 1e-12 * total


@settings(deadline=None)
@given(mixtures(), st.integers(0, 1000), st.integers(1, 50), st.integers(0, 3))
def test_an_epoch_has_the_asked_shares_and_no_row_more_often_than_another(mixture, seed, batch_size, epoch):
    sizes, counts = mixture
    order, rows = MixtureOrder(seed, sizes, counts), sum(counts)
    assert order.rows == rows
    first, last = epoch * rows, (epoch + 1) * rows
    ids = np.concatenate([order(np.arange(start, start + batch_size)) for start in range(0, last, batch_size)])[:last]
    edges = np.cumsum([0, *sizes])
    source = np.searchsorted(edges, ids, side="right") - 1
    assert np.bincount(source[first:], minlength=len(sizes)).tolist() == counts
    for i, size in enumerate(sizes):
        used = np.bincount(ids[source == i] - edges[i], minlength=size)
        assert used.max() - used.min() <= 1
    # Spread evenly: any stretch, such as a step, has its share.
    for start in range(0, last - batch_size + 1, batch_size):
        found = np.bincount(source[start : start + batch_size], minlength=len(sizes))
        assert (np.abs(found - batch_size * np.array(counts) / rows) < len(sizes)).all()


@settings(deadline=None)
@given(mixtures(), st.integers(0, 2000))
def test_what_is_drawn_can_be_counted_without_drawing(mixture, samples):
    sizes, counts = mixture
    order = MixtureOrder(0, sizes, counts)
    source, number = order.places(np.arange(samples))
    drawn = np.bincount(source, minlength=len(sizes))
    assert order.drawn(samples) == drawn.tolist()
    for i in range(len(sizes)):
        assert number[source == i].tolist() == list(range(drawn[i]))


def test_the_first_source_keeps_the_order_that_it_has_alone():
    ids = MixtureOrder(7, [40, 40], [40, 5])(np.arange(450))
    assert ids[ids < 40].tolist() == RowOrder(7, 40)(np.arange(400)).tolist()
    assert (ids[ids >= 40] - 40).tolist() != RowOrder(7, 40)(np.arange(50)).tolist()


def test_the_longest_epoch():
    order = MixtureOrder(0, [5, 5], [MOST_ROWS - 1000, 1000])
    source, number = order.places(np.array([MOST_ROWS - 1, MOST_ROWS, 7 * MOST_ROWS - 1]))
    assert source.tolist() == [0, 1, 0]
    assert number.tolist() == [MOST_ROWS - 1001, 1000, 7 * (MOST_ROWS - 1000) - 1]
    with refuses(f"{MOST_ROWS + 1:,}", f"{MOST_ROWS:,}", error=ValueError):
        MixtureOrder(0, [5, 5], [MOST_ROWS, 1])


def packed(store: Store) -> Plan:
    return plan_rows(store, 32, "documents")


def paired(store: Store) -> Plan:
    return plan_pairs(store, 32, "nsp", ENDS)


STORES = [make_store(np.random.default_rng(seed).integers(2, 50, texts)) for seed, texts in enumerate((60, 25, 90))]
COUNTS = (30, 20, 7)


def training(make: Callable[[Store], Plan] = packed, **options: Any) -> MlmBatches:
    """Batches of three sources whose tokens are 10 and above, 3,000 and above, 6,000 and above."""
    stores = [store._replace(tokens=store.tokens + np.uint16(3000 * i)) for i, store in enumerate(STORES)]
    settings: dict[str, Any] = {"batch_size": 8, "seed": 3} | options
    return MlmBatches(Mixture(tuple(map(make, stores)), COUNTS), masking(), **settings)


@pytest.mark.parametrize("make", [packed, paired])
def test_a_row_is_built_from_its_own_source(make):
    batches = training(make)
    assert isinstance(batches.plan, Mixture)
    plans = batches.plan.plans
    firsts = np.cumsum([0, *(plan.rows for plan in plans)])
    for step in range(12):
        ids, draws = batches.rows_of_step(step), batches.draws_of_step(step)
        built = batches.plan.gather(ids, SPECIAL, draws)
        source = np.searchsorted(firsts, ids, side="right") - 1
        for nth in range(8):
            i = source[nth]
            here = slice(nth, nth + 1)
            alone = plans[i].gather(ids[here] - firsts[i], SPECIAL, draws._replace(rows=draws.rows[here]))
            assert same([array[here] for array in built], alone)
            tokens = built.input_ids[nth][built.maskable[nth]]
            assert ((tokens - 10) // 3000 == i).all()


@settings(deadline=None)
@given(st.integers(0, 2**40), st.sampled_from([1, 2, 4]), st.sampled_from([packed, paired]))
def test_any_number_of_processes_builds_the_same_batch(step, processes, make):
    whole = training(make).batch(step)
    parts = [training(make, local_rows=mine).batch(step) for mine in np.split(np.arange(8), processes)]
    assert same([np.concatenate(arrays) for arrays in zip(*parts, strict=True)], whole)


def test_a_batch_depends_on_its_number_only():
    forward = training()
    assert same([forward.batch(i) for i in range(9)][-1], training().batch(8))
    assert same(training(first_step=5).batch(5).segment_ids, forward.batch(0).segment_ids), "an order that begins later"


def test_an_epoch_in_figures():
    batches = training()
    plans = list(map(packed, STORES))
    assert batches.rows == 57 and batches.steps_per_epoch == 57 / 8
    assert batches.max_segments_per_row == max(plan.max_segments for plan in plans)
    expected = sum(plan.real_tokens * count / plan.rows for plan, count in zip(plans, COUNTS, strict=True))
    assert batches.real_tokens == round(expected)
    assert batches.plan.fill == round(expected) / (57 * 32)


class Place(NamedTuple):
    """Three files of texts, one with repeated texts, and a tokenizer that knows their words."""

    root: Path
    tokenizer: Any

    def config(self, train: str = "one two", *, weights: tuple[float, ...] = (), replay: float | None = None,
               recipe: str = "dapt", pairs: str = "", **data: Any) -> Config:
        fields = {"general": self.file("general"), "seq_len": 32, "eval_rows": 1000} | data
        return Config(recipe=recipe, model=Model(path=str(self.root / "model"), pairs=pairs),  # type: ignore[arg-type]
                      data=Data(train=",".join(map(self.file, train.split())), weights=weights, replay=replay,
                                **fields),
                      train=Train(steps=10, batch_size=8, eval_every=100, log_every=1, learning_rate=1e-3),
                      compute=Compute("float32", unroll=False))

    def file(self, name: str) -> str:
        return str(self.root / f"{name}.txt")

    def corpus(self, config: Config, local_rows: Iterable[int] = range(8)) -> Corpus:
        check(config)
        return load_corpus(config, self.tokenizer, np.array(local_rows))

    def texts(self, batches: Iterable[Any]) -> list[str]:
        """The texts of batches before masking, one per segment; long ones in pieces."""
        found = []
        for batch in batches:
            ids = batch.input_ids.copy()
            row, nth = np.nonzero(batch.mlm_weights)
            ids[row, batch.mlm_positions[row, nth]] = batch.mlm_labels[row, nth]
            for tokens, segments in zip(ids, batch.segment_ids, strict=True):
                texts = (tokens[segments == i] for i in range(1, segments.max() + 1))
                found += [self.tokenizer.decode(text, skip_special_tokens=True) for text in texts]
        return found

    def sources(self, batch: Any) -> list[str]:
        """The file that each row is from."""
        as_one_text = batch._replace(segment_ids=np.minimum(batch.segment_ids, 1))
        return [self.source_of(text) for text in self.texts([as_one_text])]

    def source_of(self, text: str) -> str:
        [name] = {name for word in text.split() for name, words in WORDS.items() if word in words.split()}
        return name


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    root = tmp_path_factory.mktemp("mixture")
    tokenizer = hf.load_tokenizer(wordpiece(root / "model"), "")[0]
    draw = random.Random(0).random  # the same numbers in every version of Python
    for name, count in (("one", 150), ("two", 60), ("general", 120)):
        words = WORDS[name].split()
        texts = [" ".join(words[int(len(words) * draw())] for _ in range(6 + int(18 * draw()))) for _ in range(count)]
        texts = list(dict.fromkeys(texts))
        # Copies, which stay on the side of the text that they repeat.
        (root / f"{name}.txt").write_text("\n".join(texts + texts[: count // 3]) + "\n")
    return Place(root, tokenizer)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("JAXPLM_CACHE", str(tmp_path_factory.getbasetemp() / "mixture-cache"))


def digest(batches: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for batch in batches:
        for array in batch:
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def measured(corpus: Corpus) -> dict[str, str]:
    return {name: digest(batches) for name, batches in corpus.evaluations.items()}


def steps(corpus: Corpus, count: int = 12) -> list[Any]:
    return [corpus.train.batch(step) for step in range(count)]


def test_nothing_changes_without_the_fields(place):
    """Values of the version before these fields."""
    corpus = place.corpus(place.config())
    assert corpus.fingerprint == "84836074cc7197d5"
    assert {"train": digest(steps(corpus))} | measured(corpus) == {
        "train": "cb1a959861c996e5", "validation": "b8d7e2f55638a574", "general": "3451a28abefc0ea9"}
    assert list(corpus.facts) == ["training text", "rows", "validation text", "general text"]


@pytest.mark.parametrize("options", [{}, {"packing": "stream"}, {"whole_word": True}, {"short_len": 16},
                                     {"pairs": "nsp"}, {"pairs": "sop"}])
def test_weights_are_shares_of_the_rows(place, options):
    plain, corpus = (place.corpus(place.config(weights=weights, **options)) for weights in ((), (1.0, 3.0)))
    assert measured(plain) == measured(corpus), "what is measured does not depend on weights"
    drawn = [place.sources(batch).count("two") for batch in steps(corpus)]
    assert set(drawn) <= {5, 6, 7} and abs(sum(drawn) - 0.75 * 8 * len(drawn)) <= 2
    for number, (name, share) in enumerate((("one", 25), ("two", 75)), 1):
        said = corpus.facts[f"source {number}"]
        assert_says(said, place.file(name), "texts", "tokens", "passes")
        found = float(re.findall(r"([\d.]+)% of the rows", said)[0])
        assert found == pytest.approx(share, abs=0.5), "but for rounding to whole rows"


def test_an_epoch_has_as_many_rows_of_the_domain_as_there_are(place):
    plain, weighted, replayed = (place.corpus(place.config(weights=weights, replay=replay)).train
                                 for weights, replay in (((), None), ((1.0, 3.0), None), ((), 0.25)))
    assert isinstance(plain, MlmBatches) and isinstance(weighted, MlmBatches) and isinstance(replayed, MlmBatches)
    assert isinstance(weighted.plan, Mixture) and weighted.rows == sum(plan.rows for plan in weighted.plan.plans)
    assert plain.rows <= weighted.rows <= plain.rows + 5, "texts of two files do not share rows"
    assert replayed.rows == plain.rows + round(plain.rows / 3)
    assert isinstance(replayed.plan, Mixture) and replayed.plan.counts == (plain.rows, round(plain.rows / 3))


def test_the_domain_is_read_in_the_same_order_with_and_without_replay(place):
    plain, replayed = (place.corpus(place.config(replay=replay)).train for replay in (None, 0.25))
    assert isinstance(plain, MlmBatches) and isinstance(replayed, MlmBatches)
    ids = np.concatenate([replayed.rows_of_step(step) for step in range(40)])
    ids = ids[ids < plain.rows]
    assert len(ids) == 240
    assert ids.tolist() == np.concatenate([plain.rows_of_step(step) for step in range(30)]).tolist()


@pytest.mark.parametrize("packing", ["documents", "stream"])
def test_general_texts_are_measured_or_replayed_and_never_both(place, packing):
    corpus = place.corpus(place.config(replay=0.5, packing=packing, held_out=0.3, seq_len=64))
    assert isinstance(corpus.train, MlmBatches)
    count = 3 * round(corpus.train.steps_per_epoch)
    trained = " / ".join(place.texts(steps(corpus, count)))
    evaluated = [text for text in Path(place.file("general")).read_text().splitlines()
                if text in " / ".join(place.texts(corpus.evaluations["general"]))]
    replayed = [text for text in Path(place.file("general")).read_text().splitlines() if text in trained]
    assert len(evaluated) > 20 and len(replayed) > 60
    assert not set(evaluated) & set(replayed)
    if packing == "documents":  # a stream cuts texts at the edges of rows
        assert sorted(evaluated + replayed) == sorted(Path(place.file("general")).read_text().splitlines())
    assert_says(corpus.facts["general text"], f"{len(evaluated)} of the 160 texts") if packing == "documents" else None


def test_replay_of_zero_measures_the_same_and_replays_nothing(place):
    plain, none, some = (place.corpus(place.config(replay=replay)) for replay in (None, 0.0, 0.1))
    assert digest(steps(none)) == digest(steps(plain)) != digest(steps(some))
    assert measured(none) == measured(some)
    assert measured(none)["validation"] == measured(plain)["validation"]
    assert measured(none)["general"] != measured(plain)["general"]


class TextStore(NamedTuple):
    tokens: np.ndarray
    word_starts: np.ndarray
    offsets: np.ndarray


def text_store(*texts: list[int]) -> Any:
    tokens = np.array(sum(texts, []), np.uint16)
    return TextStore(tokens, np.ones(len(tokens), bool), np.cumsum([0, *map(len, texts)]))


def test_hub_names_and_built_ins_have_a_part_to_replay_and_one_to_measure():
    splits = {"train": text_store([1, 2], [3], [4, 5, 6]), "validation": text_store([3], [7, 8])}

    def read(spec: str, split: str = "train", max_rows: int | None = None, part_of: str = "") -> Any:
        return splits[split]

    data = Data(general="hf:news", replay=0.1)
    replayed, evaluated = general_text(data, read)
    assert replayed is not None and replayed.texts is not None
    assert replayed.store is splits["train"]
    assert replayed.texts.tolist() == [0, 2], "a copy of a measured text is not replayed"
    assert evaluated.store is splits["validation"] and evaluated.texts is None
    splits["train"] = text_store([3], [3])
    with refuses("data.replay=0.1", "data.general=hf:news"):
        general_text(data, read)


def test_everything_together(place):
    options = {"short_len": 16, "whole_word": True, "mask_rate_end": 0.3}
    corpus = place.corpus(place.config(weights=(2.0, 1.0), replay=0.25, **options))
    for batch in steps(corpus, 10):
        sources = place.sources(batch)
        assert sources.count("general") in (1, 2, 3) and sources.count("one") in (3, 4, 5)
    passes = [float(corpus.facts[f"source {i}"].rpartition("rows drawn, ")[2].split()[0]) for i in (1, 2, 3)]
    assert passes[1] > passes[0] > 0 and passes[2] > 0
    assert_says(corpus.facts["source 3"], place.file("general"), "replayed", "passes")


def test_max_rows_are_of_each_entry(place):
    corpus = place.corpus(place.config(weights=(1.0, 1.0), max_rows=30, held_out=0.1))
    texts = set(place.texts(steps(corpus, 30))) | set(place.texts(corpus.evaluations["validation"]))
    sources = [place.source_of(text) for text in texts]
    assert sources.count("one") == sources.count("two") == 30


def test_a_text_pair_may_be_in_one_entry_only(place, tmp_path):
    rows = [{"text": f"the cat {word}", "more": "the dog"} for word in WORDS["one"].split()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = place.config(text_pair="more", held_out=0.3, replay=0.1, weights=(1.0, 1.0))
    config.data.train = f"{tmp_path / 'rows.jsonl'},{place.file('two')}"
    assert_says(place.corpus(config).facts["training text"], "texts")
    config.data.train = f"{place.file('one')},{place.file('two')}"
    with refuses("data.text_pair='more'"):
        place.corpus(config)


@pytest.mark.parametrize(("options", "said"), [
    ({"weights": (1.0,)}, ("data.weights=(1.0,)", "1", "2", "data.train")),
    ({"weights": (1.0, 2.0, 3.0)}, ("data.weights", "3", "2")),
    ({"weights": (1.0, 1e-6)}, ("data.weights=(1.0, 1e-06)", "two.txt", "less than one row")),
    ({"replay": 0.1, "general": ""}, ("data.replay=0.1", "data.general")),
    ({"replay": 0.0, "general": ""}, ("data.replay=0", "data.general")),
    ({"replay": 1e-6}, ("data.replay=1e-06", "general.txt", "less than one row")),
    ({"replay": 0.1, "test": "general"}, ("general.txt", "data.general", "data.test")),
    ({"replay": 0.1, "validation": "general"}, ("general.txt", "data.general", "data.validation")),
    ({"replay": 0.1, "general": "one"}, ("one.txt", "data.general", "data.train")),
    ({"train": "one one", "weights": (1.0, 2.0)}, ("one.txt", "two entries", "data.weights")),
    ({"recipe": "extend_vocab", "weights": (1.0, 2.0), "max_rows": 20},
     ("data.max_rows=20", "data.weights", "extend_vocab")),
])
def test_mistakes_are_one_line(place, options, said):
    files = {name: place.file(options[name]) for name in ("general", "test", "validation") if options.get(name)}
    with refuses(*said):
        place.corpus(place.config(**(options | files)))


def test_a_source_that_is_held_out_as_a_whole(place, tmp_path):
    (tmp_path / "tiny.txt").write_text("mat mat\n")
    config = place.config(weights=(1.0, 1.0), held_out=0.5)
    found = []
    for number in range(12):  # which texts are held out follows from their content
        (tmp_path / "tiny.txt").write_text("mat " * (number + 1) + "\n")
        config.data.train = f"{place.file('one')},{tmp_path / 'tiny.txt'}"
        try:
            place.corpus(config)
        except UserError as error:
            assert_says(str(error), "tiny.txt", "held out", "data.validation")
            found.append(number)
    assert 0 < len(found) < 12


@pytest.mark.slow
def test_a_run_resumed_in_the_middle_has_bitwise_the_same_losses(place, tmp_path):
    sizes = tiny_config(vocab_size=len(place.tokenizer), width=24, heads=2, ffn_width=32, layers=1, dropout=0.1)
    hf.save(tmp_path / "model", sizes, nn.random_params(sizes, 0), place.tokenizer, {"model_type": "bert"})
    config = place.config(weights=(2.0, 1.0), replay=0.25)
    config.model.path = str(tmp_path / "model")

    def loop() -> engine_loop.Run:
        mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
        return engine_loop.Run(prepare(config, tmp_path, Pretraining, mesh=mesh, compute=nn.Compute()), tmp_path, "")

    def losses(run: engine_loop.Run, state: Any, start: int, stop: int) -> tuple[Any, list[float]]:
        found = []
        for number in range(start, stop):
            state, metrics = whole.setup.train_step(state, run.device_batch(number))
            found.append(float(metrics["loss"]))
        return state, found

    whole = loop()
    state, before = losses(whole, whole.setup.first_state(whole.job.params), 0, 5)
    stopped = jax.device_get(state)
    state, after = losses(whole, state, 5, 10)
    again = loop()
    saved = jax.tree.map(lambda leaf, target: jax.device_put(np.array(leaf), target.sharding), stopped,
                         again.setup.state)
    resumed, repeated = losses(again, saved, 5, 10)
    assert repeated == after and len(set(before + after)) == 10
    assert same(jax.device_get(resumed), jax.device_get(state))
