# SPDX-License-Identifier: Apache-2.0
"""The pages of the quarantine: the messages that wait for a decision, one of them, and a decision about several."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast, get_args
from urllib.parse import parse_qsl, urlencode

import structlog
import tornado.web
from sqlalchemy import Connection

from tasks.operator import MAX_REASON_LENGTH
from tasks.quarantine import batch, queries
from tasks.quarantine.batch import MAX_MESSAGES, Decision, DecisionResult
from tasks.quarantine.queries import MessageFilter
from tasks.selection import Selection
from workers.flower.page import Page, selection_changed
from workers.flower.trouble import MAX_COUNTED, counted

log = structlog.get_logger()

FIELDS: Final = ("reason", "station", "queue")
"""Parameters of the address that select messages."""
SAMPLE: Final = 10
MAX_FIELD: Final = 100
"""Characters of a filter's value."""
LARGEST_NUMBER: Final = 2**63 - 1
"""Largest id of a row on both databases."""

REASON_REQUIRED: Final = "Enter a reason: the record of the message contains it."


@dataclass(frozen=True)
class DecisionButton:
    """A button, and the description above its form."""

    name: Decision
    button: str
    description: str


DECISIONS: Final = {
    each.name: each
    for each in (
        DecisionButton(
            "retry",
            "Retry",
            "The message is requeued unchanged, and its station receives the reply as usual. Retry after the cause is"
            " removed. An event that was processed in the meantime is not processed twice.",
        ),
        DecisionButton(
            "drop",
            "Drop",
            "The content is deleted at once, and cannot be restored. The record of receipt, operator and reason is kept.",
        ),
    )
}


class QuarantinePage(Page):
    """The messages that wait for a decision."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """List the oldest messages that the address selects."""
        filters = _filters(self.get_query_argument)
        matching = MessageFilter(**filters, limit=MAX_MESSAGES)

        def read(connection: Connection) -> tuple[Any, int, list[str]]:
            return (
                queries.messages(connection, matching),
                queries.count_open(connection, MAX_COUNTED + 1, matching),
                queries.reasons(connection),
            )

        messages, number, reasons = await self.query(read)
        self.render_page(
            "quarantine.html",
            messages=messages,
            number=number,
            counted=counted,
            reasons=reasons,
            filters=filters,
            decisions=DECISIONS.values(),
        )


class MessagePage(Page):
    """One message, with its content masked."""

    @tornado.web.authenticated
    async def get(self, number: str) -> None:
        """Show the message. No one sees its content unmasked here: `bookdrop quarantine show --body` shows that."""
        message_id = _number(number)
        message = await self.query(lambda connection: queries.message(connection, message_id, reveal=False))
        if message is None:
            raise tornado.web.HTTPError(404, "There is no such message.")
        self.render_page(
            "message.html",
            message=message,
            decisions=DECISIONS.values() if message["state"] == "kept" else (),
            list_address=_list_address(self, self.get_query_argument("back", "")),
        )


class DecisionPage(Page):
    """Retry or drop several messages: chosen rows, or all that match a filter."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show the number of all messages that match the address, a sample, and the form."""
        await self._show(self.get_query_argument, self.get_query_arguments("message"))

    @tornado.web.authenticated
    async def post(self) -> None:
        """Show the form for the chosen rows; with the version of the selection that a page showed, decide."""
        numbers, expected = self.get_body_arguments("message"), self.get_body_argument("expected", "")
        if expected:
            await self._decide(numbers, expected)
        elif numbers:
            await self._show(self.get_body_argument, numbers)
        else:
            self.flash("No message is chosen: tick the messages first. Nothing was changed.")
            self.redirect(_list_address(self, self.get_body_argument("back", "")))

    async def _decide(self, numbers: list[str], expected: str) -> None:
        decision = self._decision(self.get_body_argument)
        reason = self.text_field("why", MAX_REASON_LENGTH)
        if not reason:
            await self._show(self.get_body_argument, numbers, status=400, error=REASON_REQUIRED)
            return
        operator = self.operator(reason)
        matching = _matching(self.get_body_argument, numbers)
        selection = await self.query(lambda connection: batch.select_matching(connection, matching))
        if selection.version != expected:
            error = selection_changed(expected, selection.total, "messages")
            await self._show(self.get_body_argument, numbers, status=409, error=error)
            return
        result = await self.execute(lambda context: batch.perform(decision, selection.ids, operator, context))
        log.info("messages_decided", outcome=decision, count=len(result.done), left=len(result.refused))
        if not result.done:
            refusal = next(iter(result.refused.values()), "No message matches.")
            await self._show(self.get_body_argument, numbers, status=409, error=f"{refusal} Nothing was changed.")
            return
        self.flash(_summary(decision, result, selection))
        self.redirect(_list_address(self, self.get_body_argument("back", "")))

    def _decision(self, argument: Callable[[str, str], str]) -> Decision:
        decision = argument("do", "")
        if decision not in get_args(Decision):
            raise tornado.web.HTTPError(400, "There is no such action.")
        return cast("Decision", decision)

    async def _show(
        self,
        argument: Callable[[str, str], str],
        numbers: list[str],
        *,
        status: int = 200,
        error: str | None = None,
    ) -> None:
        decision, matching = self._decision(argument), _matching(argument, numbers)

        def read(connection: Connection) -> tuple[Selection[int], list[dict[str, Any]]]:
            selection = batch.select_matching(connection, matching)
            return selection, queries.messages(connection, MessageFilter(ids=selection.ids[:SAMPLE], limit=SAMPLE))

        selection, sample = await self.query(read)
        back = argument("back", "")
        self.set_status(status)
        self.render_page(
            "decide.html",
            decision=DECISIONS[decision],
            selection=selection,
            sample=sample,
            chosen=matching.ids,
            left_out=len(matching.ids) - selection.total if matching.ids else 0,
            filters={} if numbers else {name: value for name, value in _filters(argument).items() if value},
            why=self.text_field("why", MAX_REASON_LENGTH),
            error=error,
            back=back,
            list_address=_list_address(self, back),
        )


def _filters(argument: Callable[[str, str], str]) -> dict[str, Any]:
    """The filter in an address or a form; an empty value does not restrict."""
    return {name: argument(name, "")[:MAX_FIELD] or None for name in FIELDS}


def _matching(argument: Callable[[str, str], str], numbers: list[str]) -> MessageFilter:
    if numbers:
        return MessageFilter(ids=sorted({_number(number) for number in numbers[:MAX_MESSAGES]}))
    return MessageFilter(**_filters(argument))


def _number(text: str) -> int:
    """The number of a message in an address or a form. Raises 404."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) > LARGEST_NUMBER:  # noqa: PLR2004
        raise tornado.web.HTTPError(404, "There is no such message.")
    return int(text)


def _summary(decision: Decision, result: DecisionResult, selection: Selection[int]) -> str:
    text = f"{DECISIONS[decision].button}: {len(result.done)} of {selection.total} messages."
    if result.refused:
        text += f" Not changed: {len(result.refused)}. {' '.join(sorted(set(result.refused.values()))[:5])}"
    return text + (f" {selection.left} further messages match: repeat the action for them." if selection.left else "")


def _list_address(page: Page, query: str) -> str:
    """The address of the list with the filters in `query`. Other parameters are dropped, so it cannot lead elsewhere."""
    filters = urlencode([(name, value) for name, value in parse_qsl(query) if name in FIELDS])
    return str(page.reverse_url("quarantine")) + (f"?{filters}" if filters else "")
