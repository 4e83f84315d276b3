"""What a hospital runs: intake of its mammograms, and the Flower ClientApp.

The names below are the public Python API (``docs/python-api.md``); each is imported on first use.
"""

from mamfed_common.runtime.lazy import lazy_names

_NAMES = {
    "PredictionRequest": "mamfed_client.prediction.predict",
    "Site": "mamfed_client.preparation.site_data",
    "SiteData": "mamfed_client.preparation.site_data",
    "load_site": "mamfed_client.preparation.site_data",
    "make_client_app": "mamfed_client.node.client_app",
    "predict_images": "mamfed_client.prediction.predict",
    "read_folder": "mamfed_client.datasets",
}
__all__ = [*_NAMES]
__getattr__ = lazy_names(__name__, _NAMES)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
