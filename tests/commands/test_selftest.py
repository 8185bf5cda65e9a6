import itertools

import pytest

from cnnjax import functional as F
from cnnjax.commands.selftest import CASES, QUANTITIES, check


def test_every_quantity_is_compared_in_both_places():
    findings = list(check(CASES[:1]))
    assert all(finding.right for finding in findings), findings
    found = [(finding.place, finding.quantity) for finding in findings]
    assert found == list(itertools.product(["plain", "in a loop"], QUANTITIES))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_convolution_is_found(case, monkeypatch):
    right = F.conv
    monkeypatch.setattr(F, "conv", lambda x, kernel, **options: right(x, kernel[::-1], **options))
    assert not any(finding.right for finding in check((case,)))
