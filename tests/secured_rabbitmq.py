# SPDX-License-Identifier: Apache-2.0
"""A virtual host of a real RabbitMQ with exactly the users that `bookdrop acl rabbitmq` prints."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.rabbitmq import VirtualHost, rabbitmqctl, virtual_host
from tests.requirements import skip_or_fail
from workers.cli import main

STATIONS = ("main-desk-1", "main-desk-2")


class SecuredRabbitMQ:
    """The virtual host, with its administrator's URL, and the URL that the command wrote for each user."""

    def __init__(self, host: VirtualHost, folder: Path) -> None:
        prefix = f"{host.name}-"
        named = [option for code in STATIONS for option in ("--station", code)]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("BOOKDROP_BROKER_URL", host.url)
            printed = CliRunner().invoke(
                main,
                [
                    "acl",
                    "rabbitmq",
                    *named,
                    "--prefix",
                    prefix,
                    "--format",
                    "definitions",
                    "--generate",
                    str(folder / "secrets"),
                ],
            )
        assert printed.exit_code == 0, printed.output
        definitions = json.loads(printed.stdout)
        self.host = host
        self.users = [user["name"] for user in definitions["users"]]
        self.urls = {
            file.stem.removeprefix(prefix): file.read_text().strip() for file in (folder / "secrets").glob("*.url")
        }
        rabbitmqctl("import_definitions", stdin=printed.stdout)


@contextmanager
def secured_rabbitmq(folder: Path) -> Iterator[SecuredRabbitMQ]:
    """`SecuredRabbitMQ`, whose users and virtual host are deleted at the end."""
    with virtual_host() as host:
        if host is None:
            skip_or_fail("a RabbitMQ server on 127.0.0.1:5672, and root, who may create virtual hosts")
        secured = SecuredRabbitMQ(host, folder)
        try:
            yield secured
        finally:
            for user in secured.users:
                with suppress(RuntimeError):
                    rabbitmqctl("delete_user", user)
