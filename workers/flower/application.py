# SPDX-License-Identifier: Apache-2.0
"""Create and run Flower from its own options, application and handlers, with bookdrop's handlers added."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
from celery import Celery
from flower.app import rewrite_handler
from flower.command import apply_env_options, apply_options, extract_settings, setup_logging
from flower.options import options
from flower.urls import settings as flower_settings
from tornado.ioloop import IOLoop
from tornado.web import StaticFileHandler, url

from schemas.database import open_engine
from workers import bootstrap
from workers.flower.auth import Operators
from workers.flower.batch_page import BatchPage
from workers.flower.guard import GuardedFlower
from workers.flower.printer_page import PrinterPage
from workers.flower.prints import PrintsPage, SlipPage
from workers.flower.quarantine_pages import DecisionPage, MessagePage, QuarantinePage
from workers.flower.resources import Resources
from workers.flower.returns import ReturnsPage
from workers.flower.slip_events import SlipEventReceiver
from workers.flower.slip_preview import SlipPreview
from workers.flower.task_format import format_task
from workers.flower.template_loader import TemplateLoader
from workers.flower.trouble import TroubleCounter
from workers.flower.trouble_data import TroubleData
from workers.publisher import BrokerPublisher
from workers.settings import WorkerSettings

log = structlog.get_logger()

HANDLERS: Final = (
    url(r"/prints", PrintsPage, name="prints"),
    url(r"/prints/([0-9a-f-]{36})", SlipPage, name="slip"),
    url(r"/prints/([0-9a-f-]{36})/preview\.png", SlipPreview, name="slip_preview"),
    url(r"/prints/batch", BatchPage, name="batch"),
    url(r"/prints/printer/([a-z0-9-]{1,40})", PrinterPage, name="printer"),
    url(r"/returns", ReturnsPage, name="returns"),
    url(r"/quarantine", QuarantinePage, name="quarantine"),
    url(r"/quarantine/decide", DecisionPage, name="decide"),
    url(r"/quarantine/([0-9]{1,19})", MessagePage, name="message"),
    url(r"/trouble", TroubleData, name="trouble"),
    url(
        r"/bookdrop/([a-z.]+)", StaticFileHandler, {"path": str(Path(__file__).parent / "static")}, name="bookdrop_file"
    ),
)

COLUMNS: Final = "name,uuid,args,state,result,received,runtime,worker"
"""Default columns of Flower's task page."""


def is_option(argument: str) -> bool:
    """Return whether `argument`, for example `--read_only`, is an option of Flower."""
    return argument.startswith("-") and hasattr(options, argument.lstrip("-").partition("=")[0].replace("-", "_"))


def read_options(arguments: Sequence[str]) -> None:
    """Read Flower's options from the variables `FLOWER_...`, its configuration file and the command line.

    Raises `tornado.options.Error` for an invalid value.
    """
    options.address = "127.0.0.1"
    options.format_task = format_task
    options.tasks_columns = COLUMNS
    apply_env_options()
    apply_options("bookdrop flower", arguments)
    extract_settings()
    setup_logging()


@contextmanager
def create(capp: Celery, settings: WorkerSettings) -> Iterator[GuardedFlower]:
    """Create Flower's application with bookdrop's pages, from the options read before. Raises `ConfigurationError`."""
    operators = Operators.from_settings(settings)
    engine = open_engine(settings.database_url)
    context = bootstrap.make(settings, engine)
    action_executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bookdrop-actions")
    count_executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bookdrop-count")
    loop = IOLoop.current()
    own_settings: dict[str, Any] = {
        "bookdrop": Resources(
            settings=settings,
            engine=engine,
            context=context,
            operators=operators,
            action_executor=action_executor,
            trouble=TroubleCounter(engine, count_executor),
        ),
        "template_loader": TemplateLoader(Path(flower_settings["template_path"])),
        "xsrf_cookie_kwargs": {"samesite": "Lax"},
    }
    flower = GuardedFlower(
        options=options, capp=capp, events=_events(capp, loop), io_loop=loop, **flower_settings, **own_settings
    )
    prefix = options.url_prefix
    flower.add_handlers(r".*", [rewrite_handler(handler, prefix) if prefix else handler for handler in HANDLERS])
    try:
        yield flower
    finally:
        flower.stop()
        action_executor.shutdown()
        count_executor.shutdown(wait=False, cancel_futures=True)
        if isinstance(context.publisher, BrokerPublisher):
            context.publisher.close()
        engine.dispose()


def run(capp: Celery, settings: WorkerSettings) -> None:
    """Serve until TERM or an interrupt."""
    with create(capp, settings) as flower:
        signal.signal(signal.SIGTERM, lambda *_: flower.io_loop.add_callback_from_signal(flower.stop))
        port = flower.start_http_server()
        address = options.unix_socket or f"{options.address}:{port}"
        log.info("flower_started", address=address, state="read_only" if options.read_only else "in_use")
        with suppress(KeyboardInterrupt, SystemExit):
            flower.start()


def _events(capp: Celery, loop: IOLoop) -> SlipEventReceiver:
    return SlipEventReceiver(
        capp,
        loop,
        db=options.db,
        persistent=options.persistent,
        state_save_interval=options.state_save_interval,
        enable_events=options.enable_events,
        max_workers_in_memory=options.max_workers,
        max_tasks_in_memory=options.max_tasks,
    )
