"""Which texts stand where: {texts: {name: [forms]}, places: {place: shell}} as JSON in, [[place, name]] out."""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> None:
    """Run each place's shell and search what it prints; a place that cannot be read is an error."""
    asked = json.load(sys.stdin)
    found = []
    for place, shell in asked["places"].items():
        printed = subprocess.run(["bash", "-c", f"set -o pipefail; {shell}"], stdout=subprocess.PIPE, check=True).stdout
        for name, forms in asked["texts"].items():
            if any(form.encode() in printed for form in forms):
                found.append([place, name])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
