"""What comes along beside the code: the dashboard's pages and the demo."""

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "_bundled"  # where a wheel puts it
BUNDLED = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2]
APP = BUNDLED / "app.py"
DEMO = BUNDLED / "assets" / "demo"
