# SPDX-License-Identifier: Apache-2.0
"""Write every reference page that differs from the code it documents. `make docs` runs this module.

Each module in `PAGES` has `PAGE`, the path of its page in the repository, and `page()`, its text. `asyncapi` writes the
AsyncAPI document and the JSON Schemas.
"""

import sys
from pathlib import Path

from docs.generate import (
    asyncapi,
    broker_users,
    commands,
    import_columns,
    metrics,
    outcomes,
    print_states,
    reason_codes,
    return_rules,
    settings,
    webhooks,
)

ROOT = Path(__file__).resolve().parents[2]
PAGES = (commands, import_columns, metrics, outcomes, print_states, reason_codes, return_rules, settings, webhooks)


def main() -> None:
    """Write the pages that differ, and print their paths."""
    for module in (*PAGES, broker_users):
        file = ROOT / module.PAGE
        text = module.page()
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{module.PAGE}\n")
    for changed in asyncapi.write():
        sys.stdout.write(f"docs/reference/{changed}\n")


if __name__ == "__main__":
    main()
