# SPDX-License-Identifier: Apache-2.0
"""`bookdrop patrons forget` on both databases: what is erased, what stays, and when it is refused."""

import base64
import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, inspect, select, text, update

from schemas.circulation_events import UndoRequested
from schemas.events import Override
from schemas.models import (
    InboxEntry,
    Loan,
    Patron,
    PrintJob,
    QuarantinedMessage,
    Request,
    RequestEvent,
    UndoPatronLink,
)
from schemas.request_status import RequestStatus
from tasks.privacy import stored_texts
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from tests.task_context import POLICY
from workers.cli import main

NAME, NUMBER = "Zyphora Ünmistakable", "CANARY4711007"


@pytest.fixture
def forget(library, database_url, monkeypatch, tmp_path):
    """Run `bookdrop patrons forget ...` and return its result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "redis://127.0.0.1:1/0")
    return lambda *arguments, **options: CliRunner().invoke(main, ["patrons", "forget", *arguments], **options)


@pytest.fixture
def named(library, engine):
    """A request of the patron with the canary's name and number; return its identifier and barcode."""

    def create(status=RequestStatus.LOANED, **columns):
        external_id, [barcode] = library.request(status, **columns)
        with engine.begin() as connection:
            patron = connection.execute(select(Patron.id).order_by(Patron.id.desc()).limit(1)).scalar_one()
            connection.execute(update(Patron).where(Patron.id == patron).values(name=NAME, number=NUMBER))
        return external_id, barcode

    return create


@pytest.fixture
def tables(engine):
    """Everything that the database contains, as text by table."""

    def read():
        with engine.connect() as connection:
            return {
                name: repr(connection.execute(text(f"SELECT * FROM {name}")).all())
                for name in inspect(engine).get_table_names()
            }

    return read


def naming(tables, *terms):
    """The tables that contain one of the terms."""
    return {name for name, content in tables().items() if any(term in content for term in terms)}


def past_the_undo_window(engine, library):
    with engine.begin() as connection:
        connection.execute(update(UndoPatronLink).values(purge_after=library.now - timedelta(minutes=1)))


def write_everywhere(library, handle, engine, named):
    """Let the patron's number or name into every table with a free text; return the spooled slip that names it."""
    request, _ = named(damage_note=f"coffee of {NAME.upper()}")
    override = Override(reason=f"found by {NUMBER}", supervisor=NAME)
    handle(RETURN_HANDLER, library.return_requested(request, note=f"{NUMBER.lower()} called", override=override,
                                                    print_slip=True), now=library.now)  # fmt: skip
    handle(RETURN_HANDLER, library.scan(NUMBER), policy=POLICY_WITHOUT_PATTERN)
    handle(RETURN_HANDLER, library.return_requested(NUMBER))
    folder = library.spool / "main"
    folder.mkdir()
    (folder / "slip.pdf").write_text("a slip")
    (folder / "other.pdf").write_text("another slip")
    escaped = "".join(f"\\u{ord(char):04x}" for char in NUMBER)
    bodies = (f'{{"barcode":"{NUMBER}"}}', f'{{"barcode":"{escaped}"}}', base64.b64encode(NUMBER.encode()).decode())
    with engine.begin() as connection:
        printer = connection.execute(text("SELECT id FROM printers WHERE code = 'main-slips'")).scalar_one()
        connection.execute(
            update(PrintJob).values(printer_id=printer, spool_id="slip.pdf", reason=f"for {NAME}", actor=NAME)
        )
        job = connection.execute(select(PrintJob.id)).scalar_one()
        connection.execute(
            text("INSERT INTO print_attempts (job_id, started_at, error) VALUES (:job, :at, :error)"),
            {
                "job": job.hex if engine.dialect.name == "sqlite" else job,
                "at": library.now.replace(tzinfo=None),
                "error": f"no {NUMBER}",
            },
        )
        for number, (body, encoding) in enumerate([(bodies[0], "text"), (bodies[1], "text"), (bodies[2], "base64"),
                                                   (f'{{"body": "{bodies[2]}"}}', "text")]):  # fmt: skip
            connection.execute(
                insert(QuarantinedMessage).values(
                    received_at=library.now, queue="returns", reason="bad_schema", detail=f"type {NUMBER!r}",
                    station=NUMBER, event_id=f"e-{number}", body=body, encoding=encoding, whole=True, times=1,
                    state="kept" if number else "settled",
                )
            )  # fmt: skip
        connection.execute(
            insert(QuarantinedMessage).values(
                received_at=library.now, queue="returns", reason="bad_schema", detail="", body='{"barcode":"OTHER"}',
                encoding="text", whole=True, times=1, state="kept",
            )
        )  # fmt: skip
    return folder


POLICY_WITHOUT_PATTERN = type(POLICY)(POLICY.new_id, POLICY.undo_window, None)


def test_patron_is_erased_from_every_table(library, handle, engine, named, tables, forget):
    """Number and name are in every table with a text, in several forms; afterwards in none, and other rows stay."""
    folder = write_everywhere(library, handle, engine, named)
    library.request(RequestStatus.LOANED)
    past_the_undo_window(engine, library)
    terms = (NUMBER, NUMBER.lower(), NAME, NAME.upper(), NAME.split()[1])
    before = naming(tables, *terms)

    done = forget(NUMBER, "--yes", "--json")

    assert before == {"patrons", "requests", "request_events", "inbox", "outbox", "print_jobs", "print_attempts",
                      "quarantine"}  # fmt: skip
    assert done.exit_code == 0, done.output
    assert naming(tables, *terms) == set()
    rows = json.loads(done.stdout)["rows"]
    assert rows == {
        "inbox": 2, "outbox": 2, "quarantine": 4, "request_events": 1, "requests.damage_note": 1, "print_jobs": 1,
        "print_attempts": 1, "loans": 0, "requests": 0, "set_aside_links": 2, "spool_files": 1, "patrons": 1,
    }  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["other.pdf"]
    with engine.connect() as connection:
        others = connection.execute(select(Loan.patron_id).where(Loan.discharged_at.is_(None))).scalars().all()
        kept = connection.execute(select(QuarantinedMessage.body, QuarantinedMessage.state)).all()
    assert ('{"barcode":"OTHER"}', "kept") in [tuple(row) for row in kept]
    assert {row.state for row in kept if not row.body} == {"settled", "dropped"}
    assert NUMBER not in done.output
    assert NAME not in done.output
    assert "Zyphora" not in done.stderr
    assert None not in others


def test_erased_texts_keep_what_does_not_name_the_patron(library, handle, engine, named, forget, rows):
    """The note stays with a replacement, history and slip stay complete, and the outcome of the reply does not change."""
    request, _ = named(RequestStatus.RECEIVED)
    handle(RETURN_HANDLER, library.return_requested(request, note=f"wet; {NUMBER}, who called at 5"))
    handle(RETURN_HANDLER, library.scan(NUMBER), policy=POLICY_WITHOUT_PATTERN)
    past_the_undo_window(engine, library)

    done = forget(NUMBER, "--yes")

    assert done.exit_code == 0, done.output
    assert [line.note for line in rows(RequestEvent)] == ["wet; [erased], who called at 5"]
    replies = [json.loads(row.reply) for row in rows(InboxEntry)]
    assert {(reply["outcome"], reply["reason"]) for reply in replies} == {
        ("returned", "never_loaned"), ("refused", "unknown_barcode"),
    }  # fmt: skip
    assert {row.barcode_digest for row in rows(InboxEntry)} == {None}


@pytest.mark.parametrize(
    ("status", "columns", "reason"),
    [
        (RequestStatus.LOANED, {}, "open_loan"),
        (RequestStatus.RECEIVED, {}, "open_request"),
        (RequestStatus.COMPLETED, {"on_loan": True, "loan": {"fee_open": True, "closed": True}}, "open_fee"),
        (RequestStatus.COMPLETED, {"on_loan": True, "loan": {"claimed_returned": True, "closed": True}}, "open_fee"),
    ],
)
def test_patron_who_is_needed_is_refused(library, named, forget, tables, status, columns, reason):
    """An open loan, request, fee or claim refuses with its reason and request; nothing changes, not even in texts."""
    loan = columns.get("loan", {})
    if loan.get("closed"):
        columns = {
            **columns,
            "loan": {**{k: v for k, v in loan.items() if k != "closed"}, "discharged_at": library.now},
        }
    request, _ = named(status, **columns)
    before = tables()

    refused = forget(NUMBER, "--yes", "--json")
    plain = forget(NUMBER, "--yes")

    assert refused.exit_code == plain.exit_code == 1
    found = {each["reason"]: each["requests"] for each in json.loads(refused.stdout)["refused"]}
    assert found[reason] == [request]
    assert "Nothing was erased" in plain.stderr
    assert tables() == before


def test_return_that_can_be_undone_is_refused(library, handle, engine, named, forget, rows):
    """During the undo window an undo would need the patron; after it the patron is erased, and the undo restores none."""
    _, barcode = named()
    event = library.scan(barcode)
    handle(RETURN_HANDLER, event)

    early = forget(NUMBER, "--yes", "--json")
    past_the_undo_window(engine, library)
    late = forget(NUMBER, "--yes", "--json")
    [undone] = handle(UNDO_HANDLER, library.event(UndoRequested, undoes=event["event_id"], reason="a mistake"))

    assert [each["reason"] for each in json.loads(early.stdout)["refused"]] == ["undo_open"]
    assert late.exit_code == 0, late.output
    assert undone.outcome == "done"
    assert [row.patron_id for row in rows(Request)] == [None]
    assert rows(Patron) == []


def test_dry_run_counts_and_changes_nothing(library, handle, engine, named, forget, tables):
    """The dry run reports what the erasure then does, and changes neither rows nor files."""
    folder = write_everywhere(library, handle, engine, named)
    past_the_undo_window(engine, library)
    before = tables()

    dry = json.loads(forget(NUMBER, "--dry-run", "--json").stdout)
    unchanged = tables() == before and (folder / "slip.pdf").exists()
    done = json.loads(forget(NUMBER, "--yes", "--json").stdout)
    again = json.loads(forget(NUMBER, "--yes", "--json").stdout)

    assert unchanged
    assert dry["rows"] == done["rows"]
    assert (dry["dry_run"], done["dry_run"]) == (True, False)
    assert set(again["rows"].values()) == {0}
    assert any("Backups" in place for place in done["elsewhere"])
    assert any("journals" in place for place in done["elsewhere"])


def test_question_is_asked_and_no_keeps_everything(library, named, forget, tables):
    """Without --yes the command shows the counts and asks; the number may come from standard input."""
    named(RequestStatus.COMPLETED, on_loan=False)
    before = tables()

    declined = forget("-", input=f"{NUMBER}\nn\n")
    kept = tables() == before
    confirmed = forget("-", input=f"{NUMBER}\ny\n")

    assert declined.exit_code == 1
    assert kept
    assert confirmed.exit_code == 0
    assert "requests" in confirmed.output
    assert NUMBER not in tables()["patrons"]


@pytest.mark.parametrize(("number", "note"), [("17", "17 pages are wet"), ("4711", "item 147110 and 4711x")])
def test_other_texts_that_contain_the_number_stay(library, handle, engine, named, forget, rows, number, note):
    """A short number is not searched in texts, and a part of a longer word is not a match."""
    request, _ = named(RequestStatus.RECEIVED)
    with engine.begin() as connection:
        connection.execute(update(Patron).values(number=number, name="Zyphora"))
    handle(RETURN_HANDLER, library.return_requested(request, note=note))
    past_the_undo_window(engine, library)

    done = forget(number, "--yes")

    assert done.exit_code == 0, done.output
    assert [line.note for line in rows(RequestEvent)] == [note]
    assert rows(Patron) == []


@pytest.mark.parametrize("number", ["100%", "a_b_", "(.*)", "'; DROP TABLE patrons; --", "\\u0041"])
def test_number_with_special_characters_is_taken_literally(library, handle, engine, named, forget, rows, number):
    """Wildcards of SQL and of regular expressions in a number match themselves only."""
    request, _ = named(RequestStatus.RECEIVED)
    with engine.begin() as connection:
        connection.execute(update(Patron).values(number=number))
    handle(RETURN_HANDLER, library.return_requested(request, note=f"for {number} and 1000 axbx"))
    past_the_undo_window(engine, library)

    done = forget("--yes", "--", number)

    assert done.exit_code == 0, done.output
    assert [line.note for line in rows(RequestEvent)] == ["for [erased] and 1000 axbx"]


def test_search_reaches_every_part_of_a_large_table(library, named, handle, engine, forget, rows, monkeypatch):
    """A table with more rows than one statement searches is searched to its end."""
    monkeypatch.setattr(stored_texts, "BATCH_SIZE", 3)
    named(RequestStatus.COMPLETED, on_loan=False)
    for number in range(8):
        request, _ = library.request(RequestStatus.RECEIVED)
        handle(RETURN_HANDLER, library.return_requested(request, note=NUMBER if number % 3 == 1 else "other"))

    done = json.loads(forget(NUMBER, "--yes", "--json").stdout)

    assert done["rows"]["request_events"] == 3
    assert [line.note for line in rows(RequestEvent)].count("[erased]") == 3


def test_spool_file_outside_of_the_folder_is_not_deleted(library, handle, engine, named, forget, tmp_path):
    """The printer's name of a job is text from outside: a path in it deletes nothing."""
    write_everywhere(library, handle, engine, named)
    past_the_undo_window(engine, library)
    (tmp_path / "precious.pdf").write_text("keep")
    with engine.begin() as connection:
        connection.execute(update(PrintJob).values(spool_id="../../precious.pdf"))

    done = json.loads(forget(NUMBER, "--yes", "--json").stdout)

    assert done["rows"]["spool_files"] == 0
    assert (tmp_path / "precious.pdf").exists()


def test_scan_of_the_card_after_the_erasure_is_unknown(library, handle, engine, named, forget, rows):
    """A number without a row is erased from texts as well, however it came there."""
    handle(RETURN_HANDLER, library.scan(NUMBER), policy=POLICY_WITHOUT_PATTERN)

    done = json.loads(forget(NUMBER, "--yes", "--json").stdout)

    assert done["rows"]["inbox"] == 1
    assert done["rows"]["patrons"] == 0
    assert NUMBER not in rows(InboxEntry)[0].reply


@pytest.mark.databases("sqlite")
def test_file_of_the_database_contains_no_erased_text(library, handle, engine, named, forget, database_url):
    """SQLite overwrites what the erasure deletes: the free parts of its file do not name the patron either.

    Debian's build of SQLite does so by default; others do it because the erasing connection requests it.
    """
    write_everywhere(library, handle, engine, named)
    past_the_undo_window(engine, library)
    file = Path(database_url.removeprefix("sqlite:///"))

    done = forget(NUMBER, "--yes")
    engine.dispose()  # the last connection writes the log of changes into the file

    assert done.exit_code == 0, done.output
    assert not file.with_name(file.name + "-wal").exists()
    content = file.read_bytes()
    assert b"The book number 1" in content  # the search finds text that is there
    for telltale in (NUMBER, NUMBER.lower(), "Zyphora"):
        assert telltale.encode() not in content, telltale
