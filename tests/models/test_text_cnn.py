from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.commands.layers import rows

from ..drawn import shapes, variables

SMALL = {"vocabulary": 7, "embedding_size": 3, "windows": (2, 3), "width": 4}
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 7, (2, 9)), jnp.int32)


def test_logits_are_those_of_the_equations_of_section_2():
    model = models.create("text_cnn", **SMALL)
    made = variables(model, TOKENS)
    p = jax.tree.map(partial(np.asarray, dtype=np.float64), made["params"])
    x = p["embed"]["embedding"][np.asarray(TOKENS)]
    pooled = []
    for window in (2, 3):
        linear = p[f"conv{window}"]["linear"]
        maps = [
            np.einsum("nwc,wcf->nf", x[:, i : i + window], linear["kernel"]) + linear["bias"]
            for i in range(9 - window + 1)
        ]
        pooled.append(np.maximum(maps, 0).max(0))
    head = p["head"]["linear"]
    expected = np.concatenate(pooled, axis=-1) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(made, TOKENS), expected, rtol=1e-4, atol=1e-6)


def test_the_place_of_a_phrase_does_not_count():
    model = models.create("text_cnn", **SMALL)
    made = variables(model, TOKENS)
    padded = [jnp.pad(TOKENS[:, :4], ((0, 0), (front, 8 - front))) for front in (2, 5)]
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(*[apply(made, tokens) for tokens in padded], rtol=1e-6)


def test_dropout_lies_in_front_of_the_head():
    model = models.create("text_cnn", **SMALL, dropout=0.5)
    made = variables(model, TOKENS)
    zero = jax.tree.map(jnp.zeros_like, made["params"]["conv2"])
    # Features of 1, and a head that adds them up: a sum of 8 that are 2 or 0.
    ones = {"linear": {**zero["linear"], "bias": jnp.ones(4)}}
    wide = {"linear": {"kernel": jnp.zeros((3, 3, 4)), "bias": jnp.ones(4)}}
    head = {"linear": {"kernel": jnp.ones((8, 2)), "bias": jnp.zeros(2)}}
    params = {**made["params"], "conv2": ones, "conv3": wide, "head": head}
    tokens = jnp.tile(TOKENS, (500, 1))
    run = jax.jit(partial(model.apply, train=True))
    sums = np.asarray(run({"params": params}, tokens, rngs={"dropout": jax.random.key(0)}))[:, 0]
    assert set(np.unique(sums)) <= set(2.0 * np.arange(9))
    # Of 1,000 binomial draws: mean 8, variance 4 * 8 / 4.
    assert abs(sums.mean() - 8) < 4 * np.sqrt(8 / 1000) and abs(sums.var() / 8 - 1) < 0.2


def test_words_and_kernels_start_as_in_the_authors_code():
    model = models.create("text_cnn", vocabulary=500, embedding_size=20, width=30, windows=(3,))
    made = jax.jit(lambda: model.init(jax.random.key(0), TOKENS)["params"])()
    for leaf, limit in ((made["embed"]["embedding"], 0.25), (made["conv3"]["linear"]["kernel"], 0.01)):
        assert limit * 0.98 < np.abs(leaf).max() <= limit
        assert abs(leaf.std() / (limit / np.sqrt(3)) - 1) < 0.05


def test_multiply_adds_are_those_of_the_kernels():
    # A lookup has none. Of 64 words 62, 61 and 60 windows.
    found = rows(models.create("text_cnn"), (64,), dtype="int32")
    assert sum(row.flops for row in found) == 2 * ((62 * 3 + 61 * 4 + 60 * 5) * 300 * 100 + 300 * 2)
    assert found[0].name == "embed" and found[0].parameters == 18_765 * 300


def test_a_norm_and_an_activation_reach_every_convolution():
    made = shapes(models.create("text_cnn", **SMALL, norm="batch", activation="prelu"), TOKENS)["params"]
    assert all(set(made[name]) == {"linear", "norm", "act"} for name in ("conv2", "conv3"))
    assert all(set(made[name]["linear"]) == {"kernel"} for name in ("conv2", "conv3"))


def test_what_is_no_sentence():
    model = models.create("text_cnn", **SMALL)
    made = variables(model, TOKENS)
    with pytest.raises(TypeError, match="takes tokens as integers, such as int32; got float32"):
        model.apply(made, TOKENS.astype(jnp.float32))
    with pytest.raises(ValueError, match="in layer conv3/linear: kernel larger than the padded input"):
        model.apply(made, TOKENS[:, :2])
    with pytest.raises(ValueError, match=r"windows must differ from each other; got \(3, 3\)"):
        models.create("text_cnn", windows=(3, 3))
    unknown = model.apply(made, TOKENS.at[0, 0].set(7))
    assert np.all(np.isnan(unknown[0])) and np.all(np.isfinite(unknown[1]))


def test_it_computes_in_bfloat16():
    model = models.create("text_cnn", **SMALL, dtype=jnp.bfloat16)
    made = variables(model, TOKENS)
    text = jax.jit(model.apply).lower(made, TOKENS).as_text()
    products = [
        line for line in text.splitlines() if "stablehlo.convolution" in line or "dot_general" in line
    ]
    assert products and all("bf16>" in line and "xf32>" not in line for line in products)
