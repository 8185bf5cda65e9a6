"""What happens to the gradient at initialization between 10 and 10,000 layers?

Plain tanh networks without norm or skip, Gaussian against delta-orthogonal kernels at the critical point of Xiao et al.
2018, (sigma_w^2, sigma_b^2) = (1.05, 2e-5); every layer's statistics from one pass. No training.

Papers: Schoenholz et al. 2017; Xiao et al. 2018.
Command: `cnnjax run experiments/depth.py`, or `python experiments/depth.py --quick`
Cost: 32 runs, one forward and backward pass each, in 4 programs whose compile time does not depend on the depth:
half a minute and 5 GiB on 2 CPU cores (JAX 0.10.2), two networks of 10,000 layers side by side.
Expected: delta-orthogonal kernels carry the gradient through 10,000 layers: its second moment changes by less than one order
of magnitude (median over seeds; single seeds by up to 1.4). Gaussian kernels at the same point drift, by 9 orders over
10,000 layers (median), and differently from seed to seed.
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study

STUDY = Study(
    name="depth",
    question="What happens to the gradient at initialization between 10 and 10,000 layers?",
    papers=["Schoenholz et al. 2017, arXiv:1611.01232", "Xiao et al. 2018, arXiv:1806.05393"],
    model="plain",
    options={
        "width": 16,
        "activation": "tanh",
        "padding": "CIRCULAR",
        "gain": 1.0246950765959598,  # sqrt(1.05)
        "bias_std": 0.004472135954999579,  # sqrt(2e-5)
    },
    grid={"initializer": ["gaussian", "delta_orthogonal"], "depth": [10, 100, 1000, 10_000]},
    seeds=4,
    steps=0,
    batch_size=8,
    quick={"grid": {"initializer": ["gaussian", "delta_orthogonal"], "depth": [10, 100]}, "seeds": 2},
)

if __name__ == "__main__":
    main_of_study(STUDY)
