"""What was claimed and whether a study finds it: claims with their sources, rules over a study's tables, and verdicts.

    Claim(
        name="he trains 30 layers",
        statement="A 30-layer ReLU network trains from He's initializer.",
        source="He et al. 2015, figure 3",
        rule=level("train_accuracy", {"initializer": "he_normal", "depth": 30}, at_least=0.9),
        where=Where(seeds=5, data=["digits"], at_least={"steps": 240}),
    )

A rule is a function of `Results` that returns a `Measurement`, or raises `NotTested` with the reason. `level`, `near`,
`difference`, `ratio`, `equivalent` and `ordering` make the usual ones; any other function does, too. What a rule looks at is
a metric: a column of the table of runs (the study's own measures among them), or a `Rate`, `Slope`, `AtLayer`, `StepsTo`,
`ErrorRate` or `Reduced`.
"""

from cnnjax.study.claims.builders import difference, equivalent, level, near, ordering, ratio
from cnnjax.study.claims.claim import Claim, Where, evaluate, pending
from cnnjax.study.claims.layer_metrics import AtLayer, Rate, Slope
from cnnjax.study.claims.metrics import ErrorRate, Metric, Reduced, StepsTo
from cnnjax.study.claims.results import Results
from cnnjax.study.claims.verdict import Measurement, NotTested, Verdict

__all__ = [
    "AtLayer",
    "Claim",
    "ErrorRate",
    "Measurement",
    "Metric",
    "NotTested",
    "Rate",
    "Reduced",
    "Results",
    "Slope",
    "StepsTo",
    "Verdict",
    "Where",
    "difference",
    "equivalent",
    "evaluate",
    "level",
    "near",
    "ordering",
    "pending",
    "ratio",
]
