# SPDX-License-Identifier: Apache-2.0
"""Fill a database with millions of requests in minutes: the database generates the rows.

The newest requests are on loan, with one item each. The older ones are returned: discharged, with their history and
replies. A library accumulates them over the years, and they must not make a scan slower.
"""

from collections.abc import Iterator

from figures import progress
from sqlalchemy import Connection, create_engine

ROWS_PER_STATEMENT = 250_000

_ROWS = {
    "patrons": "INSERT INTO patrons (id, number, name) SELECT n, {number}, 'Test Patron ' || n FROM {numbers}",
    "requests": """
        INSERT INTO requests (id, external_id, partner_id, branch_id, status, title, patron_id, created_at, updated_at,
            returned_at, returned_by)
        SELECT n, 'BR-' || n, 1, 1, CASE WHEN n > {returned} THEN 'loaned' ELSE 'completed' END,
            'The book number ' || n, CASE WHEN n > {returned} THEN n END, {then}, {then},
            CASE WHEN n > {returned} THEN NULL ELSE {then} END, CASE WHEN n > {returned} THEN NULL ELSE 'main-desk-1' END
        FROM {numbers}""",
    "items": "INSERT INTO items (id, request_id, position) SELECT n, n, 1 FROM {numbers}",
    "item_barcodes": """
        INSERT INTO item_barcodes (item_id, barcode, temporary) SELECT n, {barcode}, {false} FROM {numbers}""",
    "loans": """
        INSERT INTO loans (item_id, patron_id, loaned_at, discharged_at, fee_open, claimed_returned)
        SELECT n, CASE WHEN n > {returned} THEN n END, {then}, CASE WHEN n > {returned} THEN NULL ELSE {then} END, {false}, {false}
        FROM {numbers}""",
    "request_events": """
        INSERT INTO request_events (request_id, item_id, event_id, kind, status_before, status_after, at, recorded_at,
            branch, station, details)
        SELECT n, n, {uuid}, 'returned', 'loaned', 'returned_to_partner', {then}, {then}, 'main', 'main-desk-1', '{{}}'
        FROM {numbers} WHERE n <= {returned}""",
    "inbox": """
        INSERT INTO inbox (event_id, fingerprint, station, answered_at, outcome, reply)
        SELECT {uuid}, {fingerprint}, 'main-desk-1', {then}, 'returned', {reply}
        FROM {numbers} WHERE n <= {returned}""",
}
_REPLY = '\'{"type": "bookdrop.return-reply.v1", "message": "' + "A reply is about so long. " * 12 + "\"}'"
_EXPRESSIONS = {
    "postgresql": {
        "number": "'P' || lpad(n::text, 8, '0')",
        "barcode": "'3100' || lpad(n::text, 8, '0')",
        "uuid": "('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid",
        "fingerprint": "md5(n::text) || md5((-n)::text)",
        "then": "now() - interval '14 days' - interval '1 minute' * ({last} - n)",
        "false": "false",
        "numbers": "generate_series({first}, {through}) AS n",
    },
    "sqlite": {
        "number": "printf('P%08d', n)",
        "barcode": "printf('3100%08d', n)",
        "uuid": "printf('0190000000007000%016x', n)",
        "fingerprint": "printf('%064x', n)",
        "then": "strftime('%Y-%m-%d %H:%M:%S.000000', 'now', '-14 days', (n - {last}) || ' minutes')",
        "false": "0",
        "numbers": """(WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers
            WHERE n < {through}) SELECT n FROM numbers)""",
    },
}
_AFTER = {
    "postgresql": [
        *(
            f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), {{last}})"
            for name in ("patrons", "requests", "items")
        ),
        "VACUUM ANALYZE",
        "CHECKPOINT",
    ],
    "sqlite": ["ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"],
}


def load(url: str, requests: int, on_loan: int) -> Iterator[str]:
    """Create `requests`, of which the newest `on_loan` are on loan; return the barcodes of these.

    The database must have been opened by `Library.open`.
    """
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    dialect = engine.dialect.name
    returned = max(0, requests - on_loan)
    with engine.connect() as connection:
        _disable_checks(connection)
        for table, rows in _ROWS.items():
            for first in range(1, requests + 1, ROWS_PER_STATEMENT):
                numbers = {
                    "first": first,
                    "through": min(first + ROWS_PER_STATEMENT - 1, requests),
                    "returned": returned,
                    "last": requests,
                }
                expressions = {name: text.format(**numbers) for name, text in _EXPRESSIONS[dialect].items()}
                connection.exec_driver_sql(rows.format(**expressions, **numbers, reply=_REPLY))
            if requests > ROWS_PER_STATEMENT:
                progress.print(f"  {table}: {requests:,}")
        for statement in _AFTER[dialect]:
            connection.exec_driver_sql(statement.format(last=requests))
    engine.dispose()
    return (f"3100{number:08d}" for number in range(returned + 1, requests + 1))


def _disable_checks(connection: Connection) -> None:
    """Turn off durability and foreign keys: the rows are valid, and a failed load is repeated."""
    if connection.dialect.name == "sqlite":
        for pragma in ("synchronous = OFF", "foreign_keys = OFF", "cache_size = -400000"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        return
    connection.exec_driver_sql("SET statement_timeout = 0")
    connection.exec_driver_sql("SET synchronous_commit = off")
    superuser = connection.exec_driver_sql("SELECT usesuper FROM pg_user WHERE usename = current_user").scalar()
    if superuser:
        connection.exec_driver_sql("SET session_replication_role = replica")  # no check of foreign keys
