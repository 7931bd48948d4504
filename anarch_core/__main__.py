"""``python -m anarch_core``: the command ``anarch``, which imports nothing because it lies in the working directory."""

from __future__ import annotations

import sys
from pathlib import Path

# Python has put the working directory first: there it is where programs are looked for, here it is where files of others may lie.
if not sys.flags.safe_path and Path(sys.path[0]) == Path.cwd() != Path(__file__).parents[1]:
    del sys.path[0]

from anarch_core.cli import main

if __name__ == "__main__":
    main()
