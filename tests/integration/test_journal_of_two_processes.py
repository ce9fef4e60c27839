# SPDX-License-Identifier: Apache-2.0
"""A station's journal that two processes have open."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from stations.journal.events import Journal, NewEvent

PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from stations.journal.events import Journal, NewEvent

journal = Journal(Path(sys.argv[1]), "main-desk-1")
now = datetime.now(UTC)
entry = journal.append(NewEvent("second", "a task", "A2", str), now, now)
print(entry.sequence, journal.unanswered()[0].payload)
"""


def test_second_process_reads_the_event_and_continues_its_numbers(tmp_path: Path) -> None:
    """Another process reads the whole event and takes the next number; the first one sees both events."""
    path, now = tmp_path / "desk.journal", datetime.now(UTC)
    journal = Journal(path, "main-desk-1")
    journal.append(NewEvent("first", "a task", "A1", '{{"n": {}}}'.format), now, now)

    done = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True)

    assert done.stdout == '2 {"n": 1}\n'
    assert [entry.event_id for entry in journal.unanswered()] == ["first", "second"]
    journal.close()
