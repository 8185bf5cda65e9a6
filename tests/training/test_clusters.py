"""Which processes belong together: options, environment, Slurm and the others."""

import pytest

from cnnjax.training import clusters

VARIABLES = (
    *(clusters.COORDINATOR, clusters.PROCESSES, clusters.PROCESS, "TPU_ML_PLATFORM", "TPU_SKIP_MDS_QUERY"),
    *("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"),
    *("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
)


@pytest.fixture
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


def test_the_group_comes_from_options_and_environment(environment):
    assert clusters.find_group(None, None, None) is None
    assert clusters.find_group("a:1", 2, 0) == clusters.Group("a:1", 2, 0)
    environment(clusters.COORDINATOR, "node-0.local:1234")
    environment(clusters.PROCESSES, "4")
    environment(clusters.PROCESS, "3")
    assert clusters.find_group(None, None, None) == clusters.Group("node-0.local:1234", 4, 3)
    assert clusters.find_group(None, None, 1) == clusters.Group("node-0.local:1234", 4, 1)
    # Alone, whatever else is said.
    assert clusters.find_group(None, 1, None) == clusters.Group(processes=1)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("a:1", 2, None), "go together.*; missing: CNNJAX_PROCESS$"),
        ((None, None, 1), "missing: CNNJAX_COORDINATOR, CNNJAX_PROCESSES$"),
        (("localhost", 2, 0), "the coordinator must be HOST:PORT, got 'localhost'"),
        (("a:1", 0, 0), "processes must be 1 or more, got 0"),
        (("a:1", 2, 2), r"process must lie in 0..1, as there are 2 processes; got 2"),
    ],
)
def test_half_a_group_is_an_error(environment, given, text):
    with pytest.raises(ValueError, match=text):
        clusters.find_group(*given)


def test_a_number_that_is_none(environment):
    environment(clusters.PROCESSES, "two")
    with pytest.raises(ValueError, match="CNNJAX_PROCESSES must be a whole number, got 'two'"):
        clusters.find_group(None, None, None)


SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
}


@pytest.mark.parametrize(
    ("variables", "group"),
    [
        (SLURM, clusters.Group(cluster="slurm")),
        (
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": "4"},
            clusters.Group(cluster="slurm", devices=[0, 1, 2, 3]),
        ),
        (
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_GPUS_ON_NODE": "4"},
            clusters.Group(cluster="slurm"),
        ),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://n"},
            clusters.Group(cluster="ompi"),
        ),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_clusters_are_recognized(environment, variables, group):
    for name, value in variables.items():
        environment(name, value)
    assert clusters.find_group(None, None, None) == group


@pytest.mark.parametrize(
    ("variables", "platforms", "group"),
    [
        ({}, "tpu,cpu", clusters.Group(cluster="gcetpu")),
        # As on GKE, where Kubernetes is not asked.
        (
            {
                "TPU_WORKER_HOSTNAMES": "a,b",
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
                "JOB_COMPLETION_INDEX": "0",
            },
            "tpu,cpu",
            clusters.Group(cluster="gketpu"),
        ),
        ({"TPU_SKIP_MDS_QUERY": "1"}, "tpu,cpu", None),
        ({}, "cpu", None),
    ],
)
def test_tpu_pods_are_recognized(environment, monkeypatch, variables, platforms, group):
    monkeypatch.setattr(clusters, "_platforms", lambda: platforms)
    for name, value in {"TPU_ML_PLATFORM": "JAX", **variables}.items():
        environment(name, value)
    assert clusters.find_group(None, None, None) == group


def test_kubernetes_without_its_package(environment):
    environment("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    environment("JOB_COMPLETION_INDEX", "0")
    with pytest.raises(ImportError, match=r'install "jax\[k8s\]", set CNNJAX_COORDINATOR'):
        clusters.find_group(None, None, None)
    environment(clusters.PROCESSES, "1")
    assert clusters.find_group(None, None, None) == clusters.Group(processes=1)
