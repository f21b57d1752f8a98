"""Where the repository and the real data are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TEXTGYM_SHARED_DATA", ROOT.parent / "shared" / "data"))
