# SPDX-License-Identifier: Apache-2.0
"""`bookdrop metrics`: what Prometheus scrapes."""

import click

PORT = 9410


@click.command("metrics")
@click.option(
    "--listen",
    default=f"127.0.0.1:{PORT}",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where to serve /metrics. It has no login: keep it on the loopback, or in a network of your own.",
)
@click.option("--once", is_flag=True, help="Print them and end; what comes from workers' heartbeats takes 3 seconds.")
def metrics_command(listen: str, once: bool) -> None:
    """Serve metrics of all workers, the database and the broker for Prometheus, until it is told to end.

    One is enough, wherever the workers run. A source that is away is told as away (bookdrop_source_up 0).
    deploy/prometheus/ has alerts for them, docs/reference/metrics.md says what each is.

    \b
    bookdrop metrics                             on http://127.0.0.1:9410/metrics
    bookdrop metrics --listen 0.0.0.0:9410       for a Prometheus on another machine
    bookdrop metrics --once | grep outbox
    """
    import signal
    import time

    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from schemas.database import open_engine
    from workers import bootstrap, logging
    from workers.app import app
    from workers.metrics.collector import BookdropCollector
    from workers.metrics.heartbeats import Listener
    from workers.settings import WorkerSettings

    address, _, port = listen.rpartition(":")
    if not address or not port.isdigit():
        raise click.BadParameter(f"{listen!r} is no ADDRESS:PORT, such as 127.0.0.1:{PORT}", param_hint="--listen")
    settings = WorkerSettings.load()
    logging.configure(settings.log_level, settings.log_format)
    listener = Listener(app, lambda: bootstrap.connect(settings))
    listener.start()
    registry = CollectorRegistry()
    registry.register(
        BookdropCollector(
            open_engine(settings.database_url), lambda: bootstrap.connect(settings), listener, bootstrap.utc_now
        )
    )
    if once:
        time.sleep(3.0)  # workers are heard of every two seconds
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        start_http_server(int(port), address.strip("[]"), registry=registry)
    except (OSError, OverflowError) as error:
        raise click.ClickException(f"{listen} cannot be listened on: {error}. Name another with --listen.") from None
    click.echo(f"Metrics: http://{listen}/metrics   Ends at Ctrl-C or TERM.", err=True)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return
