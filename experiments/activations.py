"""How does the choice of activation decide whether a deep plain network can be trained, and can an initializer save it?

Twelve activations under three initializers at 10 and 30 layers, without norm and without skip.

Papers: Glorot & Bengio 2010 (softsign, tanh, sigmoid); He et al. 2015 (ReLU, PReLU); Clevert et al. 2016 (ELU);
Klambauer et al. 2017 (SELU); Hendrycks & Gimpel 2016 (GELU).
Command: `cnnjax run experiments/activations.py`, or `python experiments/activations.py --quick`
Cost: 432 runs of 200 steps in 24 programs: 36 minutes of processor time (2 CPU cores, JAX 0.10.2) and 2 GiB.
Expected: sigmoid vanishes everywhere, by 7 to 36 orders of magnitude, and stays at chance. At 30 layers ReLU, leaky
ReLU and PReLU train under He (84 to 95 % test accuracy) and stay at chance under Xavier and LeCun, where they lose 9
to 10 orders. GELU, SiLU and hard-swish lose 18 there, and Xavier leaves them at chance at 10 layers already;
he_normal, whose gain is each activation's own (by quadrature, not the ReLU's sqrt 2), keeps their gradient, and they
begin to train (34 to 75 %). tanh, softsign, ELU, SELU and the identity train under all three (92 to 97 %).
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study

STUDY = Study(
    name="activations",
    question="Which activation keeps the gradient alive, and can the initializer make up for it?",
    papers=[
        "Glorot & Bengio 2010",
        "He et al. 2015, arXiv:1502.01852",
        "Clevert et al. 2016, arXiv:1511.07289",
        "Klambauer et al. 2017, arXiv:1706.02515",
        "Hendrycks & Gimpel 2016, arXiv:1606.08415",
    ],
    model="plain",
    options={"width": 16},
    grid={
        "activation": [
            "sigmoid",
            "tanh",
            "softsign",
            "relu",
            "leaky_relu",
            "prelu",
            "elu",
            "selu",
            "gelu",
            "silu",
            "hard_swish",
            "identity",
        ],
        "initializer": ["xavier_normal", "he_normal", "lecun_normal"],
        "depth": [10, 30],
    },
    learning_rates=[0.03, 0.003],
    seeds=3,
    steps=200,
    record_every=25,
    quick={
        "grid": {
            "activation": ["sigmoid", "relu"],
            "initializer": ["xavier_normal", "he_normal"],
            "depth": [4],
        },
        "options": {"width": 4},
        "seeds": 1,
        "steps": 4,
        "record_every": 2,
        "batch_size": 16,
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
