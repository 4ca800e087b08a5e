"""Print the lowest versions that pyproject.toml allows, tests included, as ``pip install -r`` reads them.

python .ci/lowest.py >lowest.txt && python3 -m venv .lowest && .lowest/bin/pip install -r lowest.txt  # torch: 5 GB
make test VENV=.lowest
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"] + project["optional-dependencies"]["test"]:
    name, version = re.match(r"([^>=<!]+)>=([^,]+)", requirement).groups()
    print(f"{name}=={version}")
