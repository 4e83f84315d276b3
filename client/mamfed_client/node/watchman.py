"""``python -m mamfed_client.node.watchman HOME``: tell people at the site, and serve metrics."""

from __future__ import annotations

from mamfed_client.node.metrics import metrics
from mamfed_client.node.notices import notices
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.notify.watchman import watch_home

if __name__ == "__main__":
    watch_home(SiteHome, load_site_settings, notices, metrics)
