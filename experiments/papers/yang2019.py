"""A Mean Field Theory of Batch Normalization (Yang et al. 2019, arXiv:1902.08129): do its gradients explode with depth?

Claim as published (theorems 3.9, 3.10): in a batch-normalized network without skips the gradient's second moment
grows from layer to layer toward the input, for ReLU by pi / (pi - 1) = 1.467 as the batch grows and by more for small
batches. (Section 4): networks deeper than about 50 layers cannot be trained; after a step of training the explosion
has shrunk.
Settings: fully connected, 384 units, batch norm after every linear layer, no skip.
Smaller here: digits instead of MNIST; 50 layers. What is claimed holds at initialization and does not depend on the
data. The learning rate is 0.1, at which a single step flattens the lower half; at the paper's own, 1e-5 times the
batch, it takes about ten.
Command: `cnnjax reproduce yang2019`; `--tier full` takes MNIST (twice the multiply-adds of the small one; never run).
Found: the rates agree with theory within 2 % (ReLU 1.757, 1.520 and 1.461 at batch 8, 32 and 128). After one step the
lower half still grows by 1.23 a layer [1.16, 1.30]: less than before, not gone. 2026-11-21, JAX 0.10.2; a minute of
processor time.
"""

from cnnjax.cli import main_of_study
from cnnjax.probes import batch_norm_rate
from cnnjax.study import Study
from cnnjax.study.claims import Claim, Rate, Where, level, near

GRADIENT = "gradient_log10_second_moment"
SOURCE = "Yang et al. 2019, theorem 3.10"


def rate(batch: int) -> Claim:
    """The factor of a ReLU network's gradient at some batch size is what theory says."""
    predicted = batch_norm_rate("relu", batch=batch)
    return Claim(
        name=f"ReLU, batch {batch}",
        statement=f"With ReLU at batch size {batch} the gradient's second moment grows by {predicted:.3f} a layer.",
        source=SOURCE,
        printed=round(predicted, 4),
        rule=near(
            Rate(GRADIENT), {"activation": "relu", "batch_size": batch}, predicted, within=0.02, by="mean"
        ),
        where=Where(seeds=4, at_least={"width": 384}, exactly={"norm": "batch"}),
    )


def asymptotic(activation: str) -> Claim:
    """The factor of another activation at a large batch."""
    predicted, limit = batch_norm_rate(activation, batch=128), batch_norm_rate(activation)
    return Claim(
        name=f"{activation}, batch 128",
        statement=f"With {activation} at batch size 128 it grows by {predicted:.3f}, by {limit:.3f} in the limit.",
        source="Yang et al. 2019, section 3: E[phi'^2] / Var[phi]",
        printed=round(predicted, 4),
        rule=near(
            Rate(GRADIENT), {"activation": activation, "batch_size": 128}, predicted, within=0.02, by="mean"
        ),
        where=Where(seeds=4, at_least={"width": 384}, exactly={"norm": "batch"}),
    )


STUDY = Study(
    name="yang2019",
    question="Do the gradients of batch-normalized networks explode with depth?",
    papers=["Yang et al. 2019, arXiv:1902.08129"],
    model="mlp",
    options={"width": 384, "depth": 50, "norm": "batch", "initializer": "lecun_normal"},
    grid={"activation": ["relu", "tanh", "sigmoid"], "batch_size": [8, 32, 128]},
    learning_rates=[0.1],
    optimizer="sgd",
    seeds=4,
    steps=2,
    record_every=1,
    claims=[
        *(rate(batch) for batch in (8, 32, 128)),
        asymptotic("tanh"),
        asymptotic("sigmoid"),
        Claim(
            name="gone after a step",
            statement="After one step the lower half of the network no longer shows the explosion.",
            source="Yang et al. 2019, section 4",
            rule=level(
                Rate(GRADIENT, part=(0.0, 0.5), step=1),
                {"activation": "relu", "batch_size": 128},
                at_least=0.9,
                at_most=1.1,
            ),
            where=Where(seeds=4, exactly={"norm": "batch"}),
        ),
    ],
    quick={
        "grid": {"activation": ["relu"], "batch_size": [8]},
        "options": {"width": 32, "depth": 10, "norm": "batch"},
    },
)
FULL = STUDY.replace(name="yang2019-full", data="mnist", seeds=8)

if __name__ == "__main__":
    main_of_study(STUDY)
