"""``python tests/packaging/check_wheel.py FILE.whl``: what the distribution must and must not hold; for a wheel that was built."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(wheel: str) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    problems = [] if tops == {"anarch_core", "anarch_plugins"} else [f"top-level names are {sorted(tops)}"]
    for root, package in [(ROOT, "anarch_core"), (ROOT / "plugins", "anarch_plugins")]:
        wanted = (p for p in (root / package).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        problems += [f"{name} is missing" for p in wanted if (name := p.relative_to(root).as_posix()) not in names]
    if problems:
        sys.exit(f"{wheel}: " + "; ".join(problems))
    print(f"{len(names)} files, {', '.join(sorted(tops))}")


if __name__ == "__main__":
    main(sys.argv[1])
