"""Receptive fields against the entries of the image that have a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from cnnjax import functional as F
from cnnjax.commands.reach import Span, follow

SIZE = 40
# All positive, so that nothing cancels and no maximum hides an entry for good.
KERNEL = jnp.linspace(1.0, 2.0, 9 * 4).reshape(3, 3, 2, 2)
NARROW = KERNEL[1:2, 1:2]


def scanned(x):
    return jax.lax.scan(lambda x, kernel: (F.conv(x, kernel), None), x, jnp.stack([KERNEL] * 3))[0]


def with_shortcut(x):
    return F.conv(F.conv(x, KERNEL, stride=2), KERNEL) + x[:, ::2, ::2]


PROGRAMS = {
    "conv": lambda x: F.conv(x, KERNEL),
    "valid": lambda x: F.conv(x, KERNEL, padding="VALID"),
    "two, strided": lambda x: F.conv(F.conv(x, KERNEL, stride=2), KERNEL, stride=2),
    "dilated": lambda x: F.conv(x, KERNEL, dilation=3),
    "depthwise": lambda x: F.depthwise_conv(x, KERNEL[:, :, :1], stride=2),
    "one group each": lambda x: F.conv(x, KERNEL[:, :, :1], groups=2),
    "circular": lambda x: F.conv(x, KERNEL, padding="CIRCULAR"),
    "average pool": lambda x: F.avg_pool(F.conv(x, KERNEL), 2),
    "overlapping pool": lambda x: F.avg_pool(F.conv(x, KERNEL), 3, stride=2, padding="SAME"),
    "norm pool": lambda x: F.lp_pool(x, 3, stride=1, padding=1),
    "scan": scanned,
    "shortcut": with_shortcut,
    "activation": lambda x: F.gelu(F.conv(F.relu(x), NARROW)),
    "concatenated": lambda x: jnp.concatenate([F.conv(x, KERNEL), F.conv(x, NARROW)], axis=-1),
    "checkpoint": jax.checkpoint(lambda x: F.conv(F.conv(x, KERNEL), KERNEL)),
}


def fields(function, *, mark=lambda name, field: field):
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 2), jnp.float32)
    return follow(jax.make_jaxpr(function)(image).jaxpr, [(Span(), Span())], mark)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_field_is_where_the_gradient_is(name):
    program = PROGRAMS[name]
    image = 1 + jax.random.uniform(jax.random.key(0), (1, SIZE, SIZE, 2))
    (field,) = fields(program)
    position = jax.eval_shape(program, image).shape[1] // 2

    def entry(x):
        return program(x)[0, position, position].sum()

    seen = np.flatnonzero(np.any(np.asarray(jax.jit(jax.grad(entry))(image)) != 0, axis=(0, 2, 3)))
    span = field[0].moved(position)
    assert (seen[0], seen[-1]) == (span.low, span.high)
    assert field[0].size == seen[-1] - seen[0] + 1


def test_agrees_with_the_arithmetic_of_shapes():
    (field,) = fields(
        lambda x: F.conv(F.max_pool(F.conv(x, KERNEL, padding="VALID"), 2), KERNEL, padding="VALID")
    )
    # conv3, pool2/2, conv3: 1, 3, 4, 8.
    expected = F.receptive_field([(3,), (2, 2), (3,)])[-1]
    assert (field[0].size, field[0].jump) == (expected.size, expected.jump) == (8, 2)
    assert (field[0].low + field[0].high) / 2 == expected.start


@pytest.mark.parametrize(
    "program", [F.global_avg_pool, lambda x: x.reshape(1, -1), lambda x: x.mean((1, 2), keepdims=True)]
)
def test_without_positions_there_is_no_field(program):
    assert fields(program) == [()]


def test_what_does_not_depend_on_the_image_has_none():
    (field, other) = fields(lambda x: (x + 1, jnp.ones((1, SIZE, SIZE, 2)) * 2))
    assert field == (Span(), Span())
    assert other is None


def test_marks_are_called_in_order_and_their_fields_go_on():
    marked = []

    def mark(name, field):
        marked.append((name, field[0].size))
        return (Span(), Span()) if name == "reset" else field

    def program(x):
        def body(x, _):
            return checkpoint_name(F.conv(x, KERNEL), "body"), None

        return checkpoint_name(jax.lax.scan(body, x, None, length=3)[0], "reset")

    assert fields(program, mark=mark) == [(Span(), Span())]
    assert marked == [("body", 3), ("body", 5), ("body", 7), ("reset", 7)]
