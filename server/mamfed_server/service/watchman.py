"""``python -m mamfed_server.service.watchman HOME``: tell people, and serve metrics."""

from __future__ import annotations

from mamfed_common.notify.watchman import watch_home
from mamfed_server.service.metrics import metrics
from mamfed_server.service.notices import notices
from mamfed_server.settings import ServerHome, load_settings

if __name__ == "__main__":
    watch_home(ServerHome, load_settings, notices, metrics)
