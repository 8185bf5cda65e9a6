"""Compiling without waiting for what nobody needs."""

from collections.abc import Callable
from typing import Any

import jax


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` with its options, on CPU with LLVM's second level of optimization.

    The programs of studies and of training run as fast with it as with the third, which takes ten times as long to compile a
    random draw.
    """
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(
        function, compiler_options={"xla_backend_optimization_level": 2} if on_cpu else None, **options
    )
