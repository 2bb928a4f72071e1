"""Make the picture of a report's page that the documents show, from the execution that the tests know."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the code beside this script is meant, whatever is installed

from mrc.core.failover.report_page import page  # noqa: E402 - needs the path above
from tests.browser import Browser  # noqa: E402
from tests.core import reported  # noqa: E402

WIDTH, HEIGHT = 960, 2060

with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    html = Path(folder) / "report.html"
    html.write_text(page(reported.report(reported.archived())))
    with Browser(Path(folder) / "profile") as browser:
        browser.open(html)
        (ROOT / "docs" / "report.png").write_bytes(browser.picture(WIDTH, HEIGHT))
