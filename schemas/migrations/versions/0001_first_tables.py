# SPDX-License-Identifier: Apache-2.0
"""First tables."""

import sqlalchemy as sa
from alembic import op


revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "branches",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("library", sa.String(length=200), nullable=False),
        sa.Column("address", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_branches")),
        sa.UniqueConstraint("code", name=op.f("uq_branches_code")),
    )
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("station", sa.String(length=40), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=40), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_inbox")),
    )
    op.create_index(op.f("ix_inbox_answered_at"), "inbox", ["answered_at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("queue", sa.String(length=200), nullable=False),
        sa.Column("task", sa.String(length=200), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(op.f("ix_outbox_next_attempt_at"), "outbox", ["next_attempt_at"], unique=False)
    op.create_table(
        "partners",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("address", sa.JSON(), nullable=False),
        sa.Column("delivery_code", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partners")),
        sa.UniqueConstraint("code", name=op.f("uq_partners_code")),
    )
    op.create_table(
        "patrons",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("number", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patrons")),
        sa.UniqueConstraint("number", name=op.f("uq_patrons_number")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queue", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("station", sa.String(length=100), nullable=True),
        sa.Column("event_id", sa.String(length=100), nullable=True),
        sa.Column("reply_to", sa.String(length=100), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_received_at"), "quarantine", ["received_at"], unique=False)
    op.create_table(
        "printers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("branch_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("uri", sa.String(length=500), nullable=False),
        sa.Column("media", sa.String(length=40), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("on_hold", sa.Boolean(), nullable=False),
        sa.Column("fallback_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_printers_branch_id_branches")),
        sa.ForeignKeyConstraint(["fallback_id"], ["printers.id"], name=op.f("fk_printers_fallback_id_printers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_printers")),
        sa.UniqueConstraint("code", name=op.f("uq_printers_code")),
    )
    op.create_index(op.f("ix_printers_branch_id"), "printers", ["branch_id"], unique=False)
    op.create_table(
        "requests",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("external_id", sa.String(length=100), nullable=False),
        sa.Column("partner_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("branch_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "created",
                "ready_to_be_sent",
                "request_sent",
                "will_supply",
                "conditional",
                "shipped_physically",
                "received",
                "received_not_for_loan",
                "loaned",
                "renew_requested",
                "renewed",
                "renew_not_accepted",
                "mediated_renewal",
                "overdue",
                "recalled",
                "returned_by_patron",
                "damaged",
                "lost",
                "declared_lost",
                "returned_to_partner",
                "completed",
                "canceled_by_partner",
                "canceled_by_patron",
                "canceled_by_staff",
                "expired",
                "rejected",
                name="requeststatus",
                native_enum=False,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("title", sa.String(length=1000), nullable=False),
        sa.Column("author", sa.String(length=500), nullable=True),
        sa.Column("patron_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("return_address", sa.JSON(), nullable=True),
        sa.Column("damage_note", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("returned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("returned_by", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_requests_branch_id_branches")),
        sa.ForeignKeyConstraint(["partner_id"], ["partners.id"], name=op.f("fk_requests_partner_id_partners")),
        sa.ForeignKeyConstraint(["patron_id"], ["patrons.id"], name=op.f("fk_requests_patron_id_patrons")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        sa.UniqueConstraint("external_id", name=op.f("uq_requests_external_id")),
    )
    op.create_index(op.f("ix_requests_branch_id"), "requests", ["branch_id"], unique=False)
    op.create_index(op.f("ix_requests_partner_id"), "requests", ["partner_id"], unique=False)
    op.create_index(op.f("ix_requests_patron_id"), "requests", ["patron_id"], unique=False)
    op.create_index(op.f("ix_requests_status"), "requests", ["status"], unique=False)
    op.create_index(op.f("ix_requests_updated_at"), "requests", ["updated_at"], unique=False)
    op.create_table(
        "items",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("request_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=True),
        sa.Column("returned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("returned_by", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name=op.f("fk_items_request_id_requests")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_items")),
    )
    op.create_index(op.f("ix_items_request_id"), "items", ["request_id"], unique=False)
    op.create_table(
        "request_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("request_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("item_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column(
            "status_before",
            sa.Enum(
                "created",
                "ready_to_be_sent",
                "request_sent",
                "will_supply",
                "conditional",
                "shipped_physically",
                "received",
                "received_not_for_loan",
                "loaned",
                "renew_requested",
                "renewed",
                "renew_not_accepted",
                "mediated_renewal",
                "overdue",
                "recalled",
                "returned_by_patron",
                "damaged",
                "lost",
                "declared_lost",
                "returned_to_partner",
                "completed",
                "canceled_by_partner",
                "canceled_by_patron",
                "canceled_by_staff",
                "expired",
                "rejected",
                name="requeststatus",
                native_enum=False,
                length=30,
            ),
            nullable=True,
        ),
        sa.Column(
            "status_after",
            sa.Enum(
                "created",
                "ready_to_be_sent",
                "request_sent",
                "will_supply",
                "conditional",
                "shipped_physically",
                "received",
                "received_not_for_loan",
                "loaned",
                "renew_requested",
                "renewed",
                "renew_not_accepted",
                "mediated_renewal",
                "overdue",
                "recalled",
                "returned_by_patron",
                "damaged",
                "lost",
                "declared_lost",
                "returned_to_partner",
                "completed",
                "canceled_by_partner",
                "canceled_by_patron",
                "canceled_by_staff",
                "expired",
                "rejected",
                name="requeststatus",
                native_enum=False,
                length=30,
            ),
            nullable=True,
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("branch", sa.String(length=40), nullable=True),
        sa.Column("station", sa.String(length=40), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name=op.f("fk_request_events_request_id_requests")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request_events")),
    )
    op.create_index(op.f("ix_request_events_event_id"), "request_events", ["event_id"], unique=False)
    op.create_index("ix_request_events_request_id_id", "request_events", ["request_id", "id"], unique=False)
    op.create_table(
        "stations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("branch_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("printer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_stations_branch_id_branches")),
        sa.ForeignKeyConstraint(["printer_id"], ["printers.id"], name=op.f("fk_stations_printer_id_printers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stations")),
        sa.UniqueConstraint("code", name=op.f("uq_stations_code")),
    )
    op.create_index(op.f("ix_stations_branch_id"), "stations", ["branch_id"], unique=False)
    op.create_table(
        "item_barcodes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("item_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("barcode", sa.String(length=64), nullable=False),
        sa.Column("temporary", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_item_barcodes_item_id_items")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item_barcodes")),
    )
    op.create_index(op.f("ix_item_barcodes_barcode"), "item_barcodes", ["barcode"], unique=False)
    op.create_index("uq_item_barcodes_item_id_barcode", "item_barcodes", ["item_id", "barcode"], unique=True)
    op.create_table(
        "loans",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("item_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("patron_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("loaned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("discharged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fee_open", sa.Boolean(), nullable=False),
        sa.Column("claimed_returned", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_loans_item_id_items")),
        sa.ForeignKeyConstraint(["patron_id"], ["patrons.id"], name=op.f("fk_loans_patron_id_patrons")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_loans")),
    )
    op.create_index("ix_loans_item_id", "loans", ["item_id"], unique=False)
    op.create_index(op.f("ix_loans_patron_id"), "loans", ["patron_id"], unique=False)
    op.create_index(
        "uq_loans_open_item",
        "loans",
        ["item_id"],
        unique=True,
        sqlite_where=sa.text("discharged_at IS NULL"),
        postgresql_where=sa.text("discharged_at IS NULL"),
    )
    op.create_table(
        "print_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("item_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("copy_number", sa.Integer(), nullable=False),
        sa.Column("reprint_of", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("actor", sa.String(length=100), nullable=True),
        sa.Column("branch", sa.String(length=40), nullable=False),
        sa.Column("printer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("station", sa.String(length=40), nullable=True),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "requested",
                "claimed",
                "rendered",
                "sending",
                "accepted",
                "done",
                "confirmed",
                "held",
                "failed_safe",
                "unknown",
                "expired",
                "cancelled",
                name="printstate",
                native_enum=False,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("spool_id", sa.String(length=200), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_print_jobs_item_id_items")),
        sa.ForeignKeyConstraint(["printer_id"], ["printers.id"], name=op.f("fk_print_jobs_printer_id_printers")),
        sa.ForeignKeyConstraint(["reprint_of"], ["print_jobs.id"], name=op.f("fk_print_jobs_reprint_of_print_jobs")),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name=op.f("fk_print_jobs_request_id_requests")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_print_jobs")),
    )
    op.create_index(op.f("ix_print_jobs_event_id"), "print_jobs", ["event_id"], unique=False)
    op.create_index(op.f("ix_print_jobs_printer_id"), "print_jobs", ["printer_id"], unique=False)
    op.create_index(op.f("ix_print_jobs_request_id"), "print_jobs", ["request_id"], unique=False)
    op.create_index("ix_print_jobs_state_next_attempt_at", "print_jobs", ["state", "next_attempt_at"], unique=False)
    op.create_index(
        "uq_print_jobs_item_id_event_id_copy", "print_jobs", ["item_id", "event_id", "copy_number"], unique=True
    )
    op.create_table(
        "print_attempts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("printer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "outcome",
            sa.Enum(
                "requested",
                "claimed",
                "rendered",
                "sending",
                "accepted",
                "done",
                "confirmed",
                "held",
                "failed_safe",
                "unknown",
                "expired",
                "cancelled",
                name="printstate",
                native_enum=False,
                length=30,
            ),
            nullable=True,
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["print_jobs.id"], name=op.f("fk_print_attempts_job_id_print_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_print_attempts")),
    )
    op.create_index(op.f("ix_print_attempts_job_id"), "print_attempts", ["job_id"], unique=False)
    op.create_table(
        "set_aside_links",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("loan_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("patron_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("purge_after", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["loan_id"], ["loans.id"], name=op.f("fk_set_aside_links_loan_id_loans")),
        sa.ForeignKeyConstraint(["patron_id"], ["patrons.id"], name=op.f("fk_set_aside_links_patron_id_patrons")),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name=op.f("fk_set_aside_links_request_id_requests")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_set_aside_links")),
    )
    op.create_index(op.f("ix_set_aside_links_event_id"), "set_aside_links", ["event_id"], unique=False)
    op.create_index(op.f("ix_set_aside_links_purge_after"), "set_aside_links", ["purge_after"], unique=False)
    op.create_index(op.f("ix_set_aside_links_request_id"), "set_aside_links", ["request_id"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_set_aside_links_request_id"), table_name="set_aside_links")
    op.drop_index(op.f("ix_set_aside_links_purge_after"), table_name="set_aside_links")
    op.drop_index(op.f("ix_set_aside_links_event_id"), table_name="set_aside_links")
    op.drop_table("set_aside_links")
    op.drop_index(op.f("ix_print_attempts_job_id"), table_name="print_attempts")
    op.drop_table("print_attempts")
    op.drop_index("uq_print_jobs_item_id_event_id_copy", table_name="print_jobs")
    op.drop_index("ix_print_jobs_state_next_attempt_at", table_name="print_jobs")
    op.drop_index(op.f("ix_print_jobs_request_id"), table_name="print_jobs")
    op.drop_index(op.f("ix_print_jobs_printer_id"), table_name="print_jobs")
    op.drop_index(op.f("ix_print_jobs_event_id"), table_name="print_jobs")
    op.drop_table("print_jobs")
    op.drop_index(
        "uq_loans_open_item",
        table_name="loans",
        sqlite_where=sa.text("discharged_at IS NULL"),
        postgresql_where=sa.text("discharged_at IS NULL"),
    )
    op.drop_index(op.f("ix_loans_patron_id"), table_name="loans")
    op.drop_index("ix_loans_item_id", table_name="loans")
    op.drop_table("loans")
    op.drop_index("uq_item_barcodes_item_id_barcode", table_name="item_barcodes")
    op.drop_index(op.f("ix_item_barcodes_barcode"), table_name="item_barcodes")
    op.drop_table("item_barcodes")
    op.drop_index(op.f("ix_stations_branch_id"), table_name="stations")
    op.drop_table("stations")
    op.drop_index("ix_request_events_request_id_id", table_name="request_events")
    op.drop_index(op.f("ix_request_events_event_id"), table_name="request_events")
    op.drop_table("request_events")
    op.drop_index(op.f("ix_items_request_id"), table_name="items")
    op.drop_table("items")
    op.drop_index(op.f("ix_requests_updated_at"), table_name="requests")
    op.drop_index(op.f("ix_requests_status"), table_name="requests")
    op.drop_index(op.f("ix_requests_patron_id"), table_name="requests")
    op.drop_index(op.f("ix_requests_partner_id"), table_name="requests")
    op.drop_index(op.f("ix_requests_branch_id"), table_name="requests")
    op.drop_table("requests")
    op.drop_index(op.f("ix_printers_branch_id"), table_name="printers")
    op.drop_table("printers")
    op.drop_index(op.f("ix_quarantine_received_at"), table_name="quarantine")
    op.drop_table("quarantine")
    op.drop_table("patrons")
    op.drop_table("partners")
    op.drop_index(op.f("ix_outbox_next_attempt_at"), table_name="outbox")
    op.drop_table("outbox")
    op.drop_index(op.f("ix_inbox_answered_at"), table_name="inbox")
    op.drop_table("inbox")
    op.drop_table("branches")
