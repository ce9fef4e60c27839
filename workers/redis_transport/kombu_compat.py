# SPDX-License-Identifier: Apache-2.0
"""The private kombu API that the atomic transport depends on, with source digests."""

from typing import Final

KOMBU_VERSION: Final = "5.7.0"
"""The version of kombu whose private API the transport was written for. With any other, kombu's transport is used."""

PRIVATE_API: Final = {
    "kombu.transport.redis:QoS": {
        "__init__": "77545b203b86", "append": "35c655f6ecc6", "restore_unacked": "8954efef014d", "ack": "1bc15a4ddf54", "reject": "747a02434344",
        "pipe_or_acquire": "ad7f549d96c8", "restore_visible": "d4a4a40a3eaf", "restore_by_tag": "58e161d81b6f",
    },
    "kombu.transport.redis:MultiChannelPoller": {
        "on_poll_start": "414f76caaa67", "on_readable": "c0d99f241607", "_register_BRPOP": "85724582464a",
        "_pause_brpop": "58133695f1a9", "_update_brpop_polling": "de7b4600acf5", "get": "e0f960e0c328",
        "maybe_check_brpop_health": "0dc592e46353", "maybe_restore_messages": "6c267815d521",
    },
    "kombu.transport.redis:Channel": {
        "__init__": "f189bdebe243", "_brpop_start": "06723d707ddf", "_brpop_read": "c42518699709",
        "_do_restore_message": "8b430df94e45", "_on_connection_disconnect": "9eab3394f78b",
        "_disconnect_pools": "db50da048a22", "_flush_brpop_reauth": "bb4930b4fd3c", "_q_for_pri": "f3997660680d",
        "active_queues": "a7ca9dfbc634", "basic_consume": "34e0da85e689", "close": "101e9b9cdad4",
        "conn_or_acquire": "25883caca6c4", "pool": "5a99b1533403", "_put": "1c0cf9749576",
    },
    "kombu.transport.redis:SentinelChannel": {
        "__init__": "d9fde0a9c550", "_get_pool": "6abc6e5c81e1", "_sentinel_managed_pool": "bde54a2d6e93",
    },
    "kombu.transport.redis:Transport": {
        "__init__": "4fc30e8fa54d", "register_with_event_loop": "4b835642e4a9",
    },
    "kombu.transport.redis:GlobalKeyPrefixMixin": {
        "parse_response": "c279fe1be669", "_prefix_args": "53c96d987a84",
    },
    "kombu.transport.virtual.base:QoS": {
        "__init__": "86388d33d7d6", "append": "b388f0cd6485", "ack": "0714292b916f", "can_consume": "787f80092f8d",
        "can_consume_max_estimate": "936d3958266c", "_flush": "33e6483a6075", "restore_unacked_once": "c81f3d0fb29b",
    },
    "kombu.transport.virtual.base:Channel": {
        "basic_consume": "0fec96269493", "close": "26368e1cadfc",
    },
    "kombu.transport.virtual.base:Message": {
        "__init__": "c90d08ccfa2e",
    },
    "kombu.transport.virtual.base:Transport": {
        "_deliver": "799e242f3ec5", "_reject_inbound_message": "0fd42f24d40a",
    },
    "kombu.connection:Connection": {
        "get_transport_cls": "6c439e6b9759", "create_transport": "90c0dafd8ca3",
    },
}  # fmt: skip
"""Each class and its methods that are overridden, called, or assumed, with the first 12 hexadecimal digits of the
SHA-256 of each source. A test compares them with the installed kombu and names each method that has changed: read its
new source, adapt the transport, and write the new digest here."""
