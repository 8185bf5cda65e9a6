"""Singular values of the Jacobian of any function: all of them, or the largest ones through products alone.

A Jacobian of a network is a map that can be applied, J v by `jvp` and u J by `vjp`, long before it can be stored.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Product = Callable[[jax.Array], jax.Array]

COLUMNS_AT_ONCE = 64
"""How many columns (or rows) of a full Jacobian are computed together."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "bounds", "log10_mean_square", "relative_error"],
    meta_fields=["shape"],
)
@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Singular values of a matrix, the largest first; a pytree, so that it may leave jit, vmap and scan.

    Attributes:
      values: `(k,)`. All min(shape) of them, or the k largest.
      bounds: `(k,)`. Within this distance of each value lies a singular value; exactly computed ones have 0. Usually the
        error is far smaller: of the order of the bound's square over the gap to the next value.
      log10_mean_square: log10 of |J|_F^2 / min(shape): a logarithm, because the square of 1e-25 is no float32.
      relative_error: standard error of that mean square, relative to it: 0 where it is exact.
      shape: of the matrix, (outputs, inputs).
    """

    values: jax.Array
    bounds: jax.Array
    log10_mean_square: jax.Array
    relative_error: jax.Array
    shape: tuple[int, int]

    @property
    def complete(self) -> bool:
        """Whether all singular values are there, each exact, and the mean square with them."""
        return self.values.shape[-1] == min(self.shape)

    @property
    def maximum(self) -> jax.Array:
        """The spectral norm."""
        return self.values[..., 0]

    @property
    def minimum(self) -> jax.Array:
        """The smallest singular value. In float32 nothing below 1e-7 times the largest is resolved."""
        return self._all("minimum")[..., -1]

    @property
    def mean(self) -> jax.Array:
        """The mean singular value."""
        return jnp.mean(self._all("mean"), axis=-1)

    @property
    def median(self) -> jax.Array:
        """The median singular value."""
        return jnp.median(self._all("median"), axis=-1)

    @property
    def condition(self) -> jax.Array:
        """The largest over the smallest: infinite for a singular matrix."""
        return self.maximum / self.minimum

    def summary(self) -> dict[str, float]:
        """The numbers of one spectrum by name; those that need all singular values only where they are there."""
        names = ["maximum", "log10_mean_square", "relative_error"]
        if self.complete:
            names += ["mean", "median", "minimum", "condition"]
        return {name: float(getattr(self, name)) for name in names}

    def _all(self, name: str) -> jax.Array:
        if not self.complete:
            raise ValueError(
                f"the {name} needs all {min(self.shape)} singular values, and this spectrum holds the "
                f"{self.values.shape[-1]} largest: compute it without k, or use log10_mean_square"
            )
        return self.values


def full_spectrum(function: Product, x: jax.Array, *, precision: str | None = "highest") -> Spectrum:
    """All singular values of a function's Jacobian, by products with every unit vector of its smaller side.

    May be called inside jit and vmap. Takes min(inputs, outputs) products and the memory of the matrix.

    Args:
      function: of an array of any shape, to one of any shape.
      x: where the Jacobian is taken; floating point.
      precision: of all products (`jax.default_matmul_precision`); None leaves the platform's default.

    Raises:
      TypeError: `x` is not floating point.
    """
    with jax.default_matmul_precision(precision):
        return spectrum_of(full_jacobian(function, x))


def full_jacobian(function: Product, x: jax.Array) -> jax.Array:
    """The Jacobian as a matrix `(outputs, inputs)`, entries flattened in C order.

    Raises:
      TypeError: `x` is not floating point.
    """
    forward, transpose, (m, n) = _products(function, x)
    product, size = (forward, n) if n <= m else (transpose, m)
    units = jnp.eye(size, dtype=x.dtype)
    lines = jax.lax.map(product, units, batch_size=min(COLUMNS_AT_ONCE, size))
    return lines.T if n <= m else lines


def spectrum_of(matrix: jax.Array) -> Spectrum:
    """The spectrum of an explicit matrix `(outputs, inputs)`."""
    m, n = matrix.shape
    largest = _guarded(jnp.max(jnp.abs(matrix)))
    scaled = jnp.linalg.svd(matrix / largest, compute_uv=False)
    mean_square = 2 * jnp.log10(largest) + jnp.log10(jnp.mean(scaled * scaled))
    exact = jnp.zeros_like(scaled)
    return Spectrum(scaled * largest, exact, mean_square, jnp.zeros_like(mean_square), (m, n))


def top_spectrum(
    function: Product,
    x: jax.Array,
    *,
    k: int = 1,
    steps: int = 30,
    samples: int = 8,
    key: jax.Array | None = None,
    precision: str | None = "highest",
) -> Spectrum:
    """The k largest singular values of a function's Jacobian, and an estimate of its mean square, without the matrix.

    Golub-Kahan bidiagonalization with full reorthogonalization (Golub & Kahan 1965; Golub & Van Loan 2013, section
    10.4): among all methods that see `steps` products with J and as many with its transpose from one start, none can find
    a larger value. The values never exceed the true ones but for rounding. After 30 steps at 3072 x 3072 the largest one
    of tanh networks of 2 to 4 Gaussian layers was short by 1e-6 in the median of 120 starts, by 4e-4 at worst; that of one
    Gaussian layer, in whose spectrum there is no gap, by 6e-5 in the median, by more than 1e-3 in one start of ten, by 3e-3
    at worst. The mean square is the mean of |J v|^2 over random signs v (Hutchinson 1990), with its standard error.

    May be called inside jit and vmap. Memory: 2 `steps` vectors.

    Args:
      function: of an array of any shape, to one of any shape.
      x: where the Jacobian is taken; floating point.
      k: number of values.
      steps: pairs of products, `k` or more; no more than min(inputs, outputs) are taken.
      samples: products for the mean square, 2 or more.
      key: of the start and the signs; None is key 0.
      precision: of all products (`jax.default_matmul_precision`); None leaves the platform's default.

    Raises:
      TypeError: `x` is not floating point.
      ValueError: `k`, `steps` or `samples` is out of its range.
    """
    with jax.default_matmul_precision(precision):
        forward, transpose, shape = _products(function, x)
        steps = _checked_steps(k, steps, samples, shape)
        start, signs = jax.random.split(jax.random.key(0) if key is None else key)
        values, bounds = _lanczos(*_smaller_side_first(forward, transpose, shape), start, steps, x.dtype)
        vectors = jax.random.rademacher(signs, (samples, shape[1]), x.dtype)
        mean_square, error = _hutchinson(forward, vectors, min(shape))
    if k == min(shape):
        bounds = jnp.zeros_like(bounds)
    return Spectrum(values[:k], bounds[:k], mean_square, error, shape)


def _checked_steps(k: int, steps: int, samples: int, shape: tuple[int, int]) -> int:
    if not 1 <= k <= min(shape):
        raise ValueError(f"a Jacobian of shape {shape} has {min(shape)} singular values; got k={k}")
    if steps < k:
        raise ValueError(f"{k} singular values take as many steps or more; got steps={steps}")
    if samples < 2:
        raise ValueError(f"a standard error takes 2 samples or more; got samples={samples}")
    return min(steps, *shape)


def _products(function: Product, x: jax.Array) -> tuple[Product, Product, tuple[int, int]]:
    """v -> J v and u -> u J of flat vectors, and the shape of J. The forward pass is computed once."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"a Jacobian is taken at floating-point numbers; got {x.dtype}: use x.astype(jnp.float32)"
        )
    y, linear = jax.linearize(function, x)
    transposed = jax.linear_transpose(linear, x)

    def forward(v: jax.Array) -> jax.Array:
        return linear(v.reshape(x.shape)).reshape(-1)

    def transpose(u: jax.Array) -> jax.Array:
        return transposed(u.reshape(y.shape).astype(y.dtype))[0].reshape(-1)

    return forward, transpose, (y.size, x.size)


def _smaller_side_first(
    forward: Product, transpose: Product, shape: tuple[int, int]
) -> tuple[Product, Product, tuple[int, int]]:
    # With as many steps as the smaller side has entries, beta is 0 and the values are exact.
    m, n = shape
    return (forward, transpose, (m, n)) if n <= m else (transpose, forward, (n, m))


def _lanczos(
    forward: Product, transpose: Product, shape: tuple[int, int], key: jax.Array, steps: int, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """Ritz values and the norms of their residuals, each `(steps,)`: J V = U B, J^T U = V B^T + beta v e^T."""
    start, dead_ends = jax.random.split(key)
    v = jax.random.normal(start, shape[1:], dtype)
    drawn = jax.random.rademacher(dead_ends, (steps, sum(shape)), dtype)
    left, right = drawn[:, : shape[0]], drawn[:, shape[0] :]

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        u_basis, v_basis, v, largest = carry
        i, new_u, new_v = inputs
        v_basis = v_basis.at[i].set(v)
        image = forward(v)
        largest = jnp.maximum(largest, _norm(image))
        alpha, u = _extended(image, u_basis, new_u, largest)
        u_basis = u_basis.at[i].set(u)
        beta, v = _extended(transpose(u), v_basis, new_v, largest)
        return (u_basis, v_basis, v, largest), (alpha, beta)

    empty = (jnp.zeros_like(left), jnp.zeros_like(right), v / _norm(v), jnp.zeros((), dtype))
    _, (alphas, betas) = jax.lax.scan(step, empty, (jnp.arange(steps), left, right))
    scale = _guarded(jnp.maximum(jnp.max(alphas), jnp.max(betas)))
    bidiagonal = (jnp.diag(alphas) + jnp.diag(betas[:-1], 1)) / scale
    vectors, values, _ = jnp.linalg.svd(bidiagonal)
    return values * scale, betas[-1] * jnp.abs(vectors[-1])


def _extended(
    x: jax.Array, basis: jax.Array, fresh: jax.Array, largest: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The norm of what `basis` leaves of x, and its direction; at a dead end 0 and a fresh direction."""
    rest = _orthogonal(x, basis)
    size = _norm(rest)
    ended = size <= 4 * jnp.finfo(x.dtype).eps * largest
    direction = _orthogonal(jnp.where(ended, fresh, rest / _guarded(size)), basis)
    return jnp.where(ended, 0, size), direction / _guarded(_norm(direction))


def _orthogonal(x: jax.Array, basis: jax.Array) -> jax.Array:
    # Twice is enough (Parlett 1998, section 6.9).
    for _ in range(2):
        x = x - (basis @ x) @ basis
    return x


def _hutchinson(forward: Product, vectors: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """log10 of the mean of |J v|^2 over `count`, and its relative standard error."""
    norms = jax.lax.map(lambda v: _norm(forward(v)), vectors)
    largest = _guarded(jnp.max(norms))
    squares = jnp.square(norms / largest)
    mean = jnp.mean(squares)
    error = jnp.std(squares, ddof=1) / np.sqrt(len(vectors)) / _guarded(mean)
    return 2 * jnp.log10(largest) + jnp.log10(mean / count), error


def _norm(x: jax.Array) -> jax.Array:
    largest = _guarded(jnp.max(jnp.abs(x)))
    scaled = x / largest
    return largest * jnp.sqrt(jnp.sum(scaled * scaled))


def _guarded(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, 1, x)
