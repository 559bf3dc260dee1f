"""Operations by a model's sizes, by hand and against the compiler's count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxplm import nn
from jaxplm.nn import EncoderConfig, flops

BERT = EncoderConfig("bert", 30522, 768, 12, 12, 3072, 512)
EXBERT = dataclasses.replace(BERT, extension=nn.extension_config(BERT, 17658, 0.33))


def test_bert_base_by_hand():
    """Without attention's own products: 2 operations for each of the 85 million weights of the blocks."""
    blocks = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert flops.forward(BERT, 0) == 2 * blocks
    assert flops.forward(BERT, 128) == 2 * blocks + 12 * 2 * 2 * 128 * 768
    assert flops.mlm_head(BERT) == 2 * 768 * (768 + 30592)
    assert flops.mlm_training(BERT, 1000, 150, 128) == 3 * (1000 * flops.forward(BERT, 128) + 150 * flops.mlm_head(BERT))
    assert flops.trained(BERT, 128, "nothing") == flops.forward(BERT, 128) == flops.trained(BERT, 128) / 3


def test_an_extension_adds_its_share():
    """The paper's usual extension, 252/1024, has a third of a block's weights."""
    assert flops.forward(EXBERT, 0) / flops.forward(BERT, 0) == pytest.approx(1.33, abs=0.01)
    assert flops.mlm_head(EXBERT) - flops.mlm_head(BERT) == 2 * 768 * 17664
    own = flops.forward(EXBERT, 64) - flops.forward(BERT, 64)
    assert flops.trained(EXBERT, 64, "extension") == 2 * flops.forward(BERT, 64) + 3 * own


@pytest.mark.slow
@pytest.mark.parametrize("extended", [False, True])
def test_the_compiler_counts_about_the_same(extended):
    config = EncoderConfig("bert", 2000, 128, 1, 4, 512, 64)  # one block: the compiler counts the inside of a loop once
    if extended:
        config = dataclasses.replace(config, extension=nn.extension_config(config, 500, 0.5))
    graph, params = nn.abstract_model(config)
    ids = jax.ShapeDtypeStruct((4, 64), jnp.int32)

    def run(params, ids):
        return nn.merge_params(graph, params).mlm_logits(ids)

    cost = jax.jit(run).lower(params, ids).compile().cost_analysis()
    counted = float((cost if isinstance(cost, dict) else cost[0])["flops"])
    expected = ids.size * (flops.forward(config, 64) + flops.mlm_head(config))
    assert 1.0 < counted / expected < 1.3, "and element-wise work"
