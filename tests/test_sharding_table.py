"""Where every parameter of RoBERTa-base with exBERT's extension lies on a mesh, compared with the table in sharding.json.

    python -m tests.test_sharding_table

from the root of the repository writes the table again; read the difference before it is committed.
"""

import json
from pathlib import Path

import jax

from jaxplm import nn
from jaxplm.config import Mesh
from jaxplm.devices import sharding
from jaxplm.nn import paths

TABLE = Path(__file__).with_name("sharding.json")
ROBERTA_BASE = nn.EncoderConfig("roberta", vocab_size=50_265, width=768, layers=12, heads=12, ffn_width=3072, max_positions=512,
                                position_offset=2, token_types=1, norm_eps=1e-5, pad_id=1, pooler=True, pair_head=True,
                                extension=nn.ExtensionConfig(tokens=17_658, width=252, heads=12, ffn_width=1024))
MESH = (2, 2, 2)


def table() -> dict[str, dict[str, list]]:
    """{path: {"shape": [...], "spec": [axis or None, ...]}}, a spec as long as its shape."""
    devices = jax.devices()
    assert len(devices) == 8, "the table is of 8 devices"
    mesh = sharding.make_mesh(Mesh(*MESH))
    _, params = nn.abstract_model(ROBERTA_BASE)
    placed = paths.named(sharding.param_shardings(params, mesh))
    found = {}
    for path, leaf in sorted(paths.named(params).items()):
        spec = list(placed[path].spec)
        found[path] = {"shape": list(leaf.shape), "spec": spec + [None] * (len(leaf.shape) - len(spec))}
    return found


def dump() -> str:
    """One parameter a line, so that a difference can be read."""
    lines = (f"  {json.dumps(path)}: {json.dumps(entry)}" for path, entry in table().items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def test_the_table_is_as_committed():
    committed, now = json.loads(TABLE.read_text("utf-8")), table()
    differing = [f"{path}: {committed.get(path)} → {now.get(path)}" for path in sorted(committed.keys() | now.keys())
                 if committed.get(path) != now.get(path)]
    assert not differing, "\n".join([
        "parameters lie elsewhere than tests/sharding.json says:", *differing,
        "if that is what was meant: python -m tests.test_sharding_table, and commit the file"])
    assert dump() == TABLE.read_text("utf-8"), "tests/sharding.json was written by hand; run python -m tests.test_sharding_table"


def test_what_is_large_is_split():
    """Whatever the table says: on fsdp and tensor together no matrix is held whole, and a device holds a quarter of all."""
    held = total = base = 0
    for path, entry in table().items():
        size = held_here = 1
        for length, axis in zip(entry["shape"], entry["spec"], strict=True):
            assert axis in (None, "fsdp", "tensor"), f"{path}: parameters are the same for every data index"
            size *= length
            held_here *= length // 2 if axis else length
        if path.endswith("kernel") or path.endswith("embeddings/word"):
            assert held_here <= size // 2, path
        if size > 1_000_000:
            assert held_here == size // 4, path
        total, held = total + size, held + held_here
        base += 0 if "extension" in path else size
    assert 124e6 < base < 126e6, "RoBERTa-base has 125 M parameters"
    assert held < 0.26 * total


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    TABLE.write_text(dump(), "utf-8")
    print(f"{TABLE}: {len(table())} parameters")
