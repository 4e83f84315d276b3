"""A multi-vendor federation on one machine: phantoms, the run, its comparison and its report.

The names below are the public Python API (``docs/python-api.md``); each is imported on first use.
"""

from mamfed_common.runtime.lazy import lazy_names

_NAMES = {
    "Arm": "mamfed_simulations.federation.arms",
    "VENDORS": "mamfed_simulations.phantoms.vendors",
    "centralised_arm": "mamfed_simulations.federation.arms",
    "demo_plan": "mamfed_simulations.federation.demo",
    "describe_sites": "mamfed_simulations.federation.arms",
    "federated_arm": "mamfed_simulations.federation.arms",
    "local_arms": "mamfed_simulations.federation.arms",
    "run_federation": "mamfed_simulations.federation.runner",
    "write_cohort": "mamfed_simulations.phantoms.vendors",
}
__all__ = [*_NAMES]
__getattr__ = lazy_names(__name__, _NAMES)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
