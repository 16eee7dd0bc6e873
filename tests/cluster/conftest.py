"""The cluster test takes minutes and needs root: `make cluster-test` runs it, not `make test`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore_glob = [] if os.environ.get("TATS_CLUSTER_TEST") else ["test_*.py"]
