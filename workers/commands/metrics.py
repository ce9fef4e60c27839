# SPDX-License-Identifier: Apache-2.0
"""`bookdrop metrics`: serve metrics for Prometheus."""

import click

PORT = 9410


@click.command("metrics")
@click.option(
    "--listen",
    default=f"127.0.0.1:{PORT}",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Address of /metrics. It has no login: keep it on the loopback address or in a private network.",
)
@click.option("--once", is_flag=True, help="Print the metrics and exit. Worker heartbeats take 3 seconds to arrive.")
def metrics_command(listen: str, once: bool) -> None:
    """Serve metrics of all workers, the database and the broker for Prometheus, until TERM or Ctrl-C.

    One exporter is enough, wherever the workers run. If a source is unavailable, bookdrop_source_up is 0 for it.
    deploy/prometheus/ has alerts; docs/reference/metrics.md describes each metric.

    \b
    bookdrop metrics                             on http://127.0.0.1:9410/metrics
    bookdrop metrics --listen 0.0.0.0:9410       for a Prometheus server on another machine
    bookdrop metrics --once | grep outbox
    """
    import signal
    import time

    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from schemas.database import open_engine
    from workers import bootstrap, logging
    from workers.app import app
    from workers.metrics.collector import BookdropCollector
    from workers.metrics.heartbeats import HeartbeatReceiver
    from workers.settings import WorkerSettings

    address, _, port = listen.rpartition(":")
    if not address or not port.isdigit():
        raise click.BadParameter(f"{listen!r} is not an ADDRESS:PORT. Example: 127.0.0.1:{PORT}", param_hint="--listen")
    settings = WorkerSettings.load()
    logging.configure(settings.log_level, settings.log_format)
    receiver = HeartbeatReceiver(app, lambda: bootstrap.connect_for_monitoring(settings))
    receiver.start()
    registry = CollectorRegistry()
    registry.register(
        BookdropCollector(
            open_engine(settings.database_url),
            lambda: bootstrap.connect_for_monitoring(settings),
            receiver,
            bootstrap.utc_now,
        )
    )
    if once:
        time.sleep(3.0)  # workers send a heartbeat every two seconds
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    try:
        start_http_server(int(port), address.strip("[]"), registry=registry)
    except (OSError, OverflowError) as error:
        raise click.ClickException(
            f"Cannot listen on {listen}: {error}. Choose another address with --listen."
        ) from None
    click.echo(f"Metrics: http://{listen}/metrics   Stop with Ctrl-C or TERM.", err=True)
    try:
        # Not by SIGINT: a shell that is not interactive starts background jobs with SIGINT ignored.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return
