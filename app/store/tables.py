"""Database tables: artifacts, aliases, jobs and their events, tokens."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, String, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite drops the time zone, so it is restored on reading."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Restore the time zone."""
        return None if value is None else value.replace(tzinfo=UTC)


class Row(DeclarativeBase):
    """Base class of all rows."""


def now() -> datetime:
    """Current time in UTC."""
    return datetime.now(UTC)


class Artifact(Row):
    """A finished artifact on disk: rules, source, dataset, run, model, prediction."""

    __tablename__ = "artifact"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), index=True)
    path: Mapped[str]  # relative to the data directory
    record: Mapped[str | None] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(default="")  # display name
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"))
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


class Alias(Row):
    """A name that points to a model, such as `production`."""

    __tablename__ = "alias"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))
    changed_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


class Job(Row):
    """A request and its outcome; the state is kept by the job queue."""

    __tablename__ = "job"
    __table_args__ = (Index("job_by_key", "key", "created_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(32))
    inputs: Mapped[dict[str, str]] = mapped_column(JSON)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class JobEvent(Row):
    """An event that a job reported."""

    __tablename__ = "job_event"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), index=True)
    at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    event: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Token(Row):
    """An access token: its hash and role. Revoked tokens stay in the table."""

    __tablename__ = "token"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    label: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)
