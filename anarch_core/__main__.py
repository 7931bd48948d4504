"""``python -m anarch_core``."""

from __future__ import annotations

from anarch_core.cli import main

if __name__ == "__main__":
    main()
