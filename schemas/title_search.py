# SPDX-License-Identifier: Apache-2.0
"""Full-text search over titles and authors: the index on each database, and the condition that uses it.

PostgreSQL has an expression index on `requests`. SQLite has an FTS5 table beside it, which triggers keep current. On both
a word matches without regard to case and diacritics, and from its beginning: "muller" finds "Müller" and "Müllerin".
"""

import re
import unicodedata
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, column, literal_column, table, text

MAX_WORDS: Final = 12
"""Words of a search; further ones are ignored."""
MAX_WORD: Final = 60
"""Length of a word, in characters; a longer one is cut."""

# NFKD separates diacritics from their letters. Punctuation becomes a space: PostgreSQL's parser would keep "node.js" as one
# word. Every function is immutable, as an index requires.
# A change of this expression or of CREATE needs a migration that drops the index and creates it again.
_WORDS_OF_ROW: Final = (
    "to_tsvector('simple', regexp_replace(regexp_replace(normalize(title || ' ' || coalesce(author, ''), NFKD),"
    " '[\\u0300-\\u036f]', '', 'g'), '[!-/:-@\\[-`{-~]+', ' ', 'g'))"
)

_FTS_TABLE: Final = """CREATE VIRTUAL TABLE request_words USING fts5(
    title, author, content='requests', content_rowid='id', tokenize="unicode61 remove_diacritics 2"
)"""
_ON_INSERT: Final = """CREATE TRIGGER request_words_insert AFTER INSERT ON requests BEGIN
    INSERT INTO request_words(rowid, title, author) VALUES (new.id, new.title, new.author);
END"""
_ON_DELETE: Final = """CREATE TRIGGER request_words_delete AFTER DELETE ON requests BEGIN
    INSERT INTO request_words(request_words, rowid, title, author) VALUES ('delete', old.id, old.title, old.author);
END"""
# An update of other columns, above all of the status, does not reach the index.
_ON_UPDATE: Final = """CREATE TRIGGER request_words_update AFTER UPDATE OF title, author ON requests BEGIN
    INSERT INTO request_words(request_words, rowid, title, author) VALUES ('delete', old.id, old.title, old.author);
    INSERT INTO request_words(rowid, title, author) VALUES (new.id, new.title, new.author);
END"""
_FILL: Final = "INSERT INTO request_words(request_words) VALUES ('rebuild')"

CREATE: Final = {
    "postgresql": (f"CREATE INDEX ix_requests_words ON requests USING gin (({_WORDS_OF_ROW}))",),
    "sqlite": (_FTS_TABLE, _ON_INSERT, _ON_DELETE, _ON_UPDATE, _FILL),
}
"""Statements that create and fill the index, by the name of the SQL dialect."""

_MATCH: Final = {
    "postgresql": f"{_WORDS_OF_ROW.replace('title', 'requests.title').replace('author', 'requests.author')}"
    " @@ to_tsquery('simple', :words)",
    "sqlite": "request_words MATCH :words",
}
_FTS_ROWS: Final = table("request_words", column("rowid", Integer))


def split_words(phrase: str) -> list[str]:
    """The words of a search: letters and digits only."""
    composed = unicodedata.normalize("NFKC", phrase)
    return [word[:MAX_WORD] for word in re.findall(r"[^\W_]+", composed)[:MAX_WORDS]]


def restrict_to_words(
    requests: Select[Any], connection: Connection, words: list[str]
) -> tuple[Select[Any], ColumnElement[int]]:
    """Restrict a selection of `requests` to those whose title and author have a word that begins with each of `words`.

    Returns the selection, and the column to order it by: the request's id, as the index has it. SQLite reads its index in
    that order, so that the newest requests are found without all others. `words` come from `split_words` and are not empty.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        query = " & ".join(f"{_without_diacritics(word)}:*" for word in words)
        order: ColumnElement[int] = literal_column("requests.id", Integer)
    else:
        query = " ".join(f'"{word}"*' for word in words)  # FTS5 folds the words as it folded the titles
        order = _FTS_ROWS.c.rowid
        requests = requests.join(_FTS_ROWS, text("request_words.rowid = requests.id"))
    return requests.where(text(f"({_MATCH[dialect]})").bindparams(bindparam("words", query))), order


def _without_diacritics(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word)
    return re.sub("[\u0300-\u036f]", "", decomposed)
