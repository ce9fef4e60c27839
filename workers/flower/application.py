# SPDX-License-Identifier: Apache-2.0
"""Flower, made and run by its own parts: its options, its application, its handlers, and ours beside them."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
from celery import Celery
from flower.app import Flower, rewrite_handler
from flower.command import apply_env_options, apply_options, extract_settings, setup_logging
from flower.options import options
from flower.urls import settings as flowers_settings
from tornado.ioloop import IOLoop
from tornado.web import StaticFileHandler, url

from schemas.database import open_engine
from workers import bootstrap
from workers.flower.auth import People
from workers.flower.page import Parts
from workers.flower.prints import PrintsPage, RetryAllPage, SlipPage
from workers.flower.returns import ReturnsPage
from workers.flower.sign_in import SignInPage, SignOutPage
from workers.flower.slip_events import LiveEvents
from workers.flower.task_format import readable
from workers.flower.template_loader import TemplateLoader
from workers.publisher import BrokerPublisher
from workers.settings import WorkerSettings

log = structlog.get_logger()

HANDLERS: Final = (
    url(r"/prints", PrintsPage, name="prints"),
    url(r"/prints/([0-9a-f-]{36})", SlipPage, name="slip"),
    url(r"/prints/retry-all/([a-z0-9-]{1,40})", RetryAllPage, name="retry_all"),
    url(r"/returns", ReturnsPage, name="returns"),
    url(r"/sign-in", SignInPage, name="sign_in"),
    url(r"/sign-out", SignOutPage, name="sign_out"),
    url(
        r"/bookdrop/([a-z.]+)", StaticFileHandler, {"path": str(Path(__file__).parent / "static")}, name="bookdrop_file"
    ),
)

COLUMNS: Final = "name,uuid,args,state,result,received,runtime,worker"
"""Of Flower's page of tasks, where nobody asks for others."""


def is_option(argument: str) -> bool:
    """Tell whether Flower has the option that `argument` gives, such as `--read_only`."""
    return argument.startswith("-") and hasattr(options, argument.lstrip("-").partition("=")[0].replace("-", "_"))


def read_options(arguments: Sequence[str]) -> None:
    """Flower's options from its variables (`FLOWER_...`), its configuration file and the command line.

    Raises `tornado.options.Error` for a value that cannot be one.
    """
    options.address = "127.0.0.1"
    options.format_task = readable
    options.tasks_columns = COLUMNS
    apply_env_options()
    apply_options("bookdrop flower", arguments)
    extract_settings()
    setup_logging()


@contextmanager
def made(capp: Celery, settings: WorkerSettings) -> Iterator[Flower]:
    """Flower's application with our pages in it, by the options that were read. Raises `ConfigurationError`."""
    people = People.of(settings)
    engine = open_engine(settings.database_url)
    here = bootstrap.make(settings, engine)
    deciding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bookdrop-deciding")
    parts = Parts(settings=settings, engine=engine, here=here, people=people, deciding=deciding)
    loop = IOLoop.current()
    ours: dict[str, Any] = {
        "bookdrop": parts,
        "template_loader": TemplateLoader(Path(flowers_settings["template_path"])),
        "xsrf_cookie_kwargs": {"samesite": "Lax"},
    }
    flower = Flower(options=options, capp=capp, events=_events(capp, loop), io_loop=loop, **flowers_settings, **ours)
    prefix = options.url_prefix
    flower.add_handlers(r".*", [rewrite_handler(each, prefix) if prefix else each for each in HANDLERS])
    try:
        yield flower
    finally:
        flower.stop()
        deciding.shutdown()
        if isinstance(here.publisher, BrokerPublisher):
            here.publisher.close()
        engine.dispose()


def run(capp: Celery, settings: WorkerSettings) -> None:
    """Serve until TERM or an interrupt."""
    with made(capp, settings) as flower:
        signal.signal(signal.SIGTERM, lambda *_: flower.io_loop.add_callback_from_signal(flower.stop))
        port = flower.start_http_server()
        where = options.unix_socket or f"{options.address}:{port}"
        log.info("flower_started", address=where, state="read_only" if options.read_only else "in_use")
        with suppress(KeyboardInterrupt, SystemExit):
            flower.start()


def _events(capp: Celery, loop: IOLoop) -> LiveEvents:
    return LiveEvents(
        capp,
        loop,
        db=options.db,
        persistent=options.persistent,
        state_save_interval=options.state_save_interval,
        enable_events=options.enable_events,
        max_workers_in_memory=options.max_workers,
        max_tasks_in_memory=options.max_tasks,
    )
