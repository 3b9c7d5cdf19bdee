"""Request and response bodies."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.queue import State

MAX_TRAINING_S = 14 * 24 * 3600


# Ids and aliases; anything else is rejected before the lookup.
Id = Annotated[str, Field(max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]


class Body(BaseModel):
    """A request body; unknown keys are rejected."""

    model_config = ConfigDict(extra="forbid")


class SourceRequest(Body):
    """Download an archive and store its files as a source."""

    url: str = Field(
        max_length=2000, description="https URL, optionally ending in #sha256= or #md5="
    )


class DoctorRequest(Body):
    """Examine a source, optionally with stored rules."""

    rules: Id | None = Field(default=None, description="id of stored rules")


class DatasetRequest(Body):
    """Format a source according to rules."""

    source: Id = Field(description="id of a source")
    rules: Id = Field(description="id of stored rules")


class RunRequest(Body):
    """Train on a dataset."""

    dataset: Id = Field(description="id of a dataset, or of the job that creates it")
    time_limit_s: float = Field(ge=1, le=MAX_TRAINING_S, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**32)


class Made(BaseModel):
    """Response of every POST that creates something; a job's `id` can be used for its result."""

    id: str
    kind: str
    status: State
    job: str | None = None
    links: dict[str, str]


class RulesMade(Made):
    """Stored rules with their canonical document."""

    rules: dict[str, Any]


class RulesForms(BaseModel):
    """Rules in both forms; nothing is stored."""

    id: str
    rules: dict[str, Any]
    paper: dict[str, str] | None = Field(
        description="null if the short form cannot express the rules"
    )


class ArtifactView(BaseModel):
    """A finished artifact."""

    id: str
    kind: str
    record: str | None
    label: str
    facts: dict[str, Any]
    job: str | None
    created_at: datetime
    links: dict[str, str]


class ModelView(ArtifactView):
    """A model and its aliases."""

    aliases: list[str]


class JobView(BaseModel):
    """A job; `progress.share` goes from 0 to 1, if known."""

    id: str
    kind: str
    status: State
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    inputs: dict[str, str]
    parameters: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class EventView(BaseModel):
    """An event of a job."""

    id: int
    at: datetime
    event: str
    data: dict[str, Any]


class Events(BaseModel):
    """Events of a job; request the following ones with `after` = `next`."""

    events: list[EventView]
    next: int
    status: State


class RunView(BaseModel):
    """A run: the status of its job, and its model."""

    id: str
    kind: Literal["run"] = "run"
    status: State
    job: str | None = None
    run: str | None
    model: str | None
    progress: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    parameters: dict[str, Any] = {}
    created_at: datetime
    links: dict[str, str]


class Promoted(BaseModel):
    """The alias and the model that it now points to."""

    alias: str
    model: str


class SampleView(BaseModel):
    """A sample of a dataset."""

    name: str
    split: str
    group: str
    links: dict[str, str]


class Samples(BaseModel):
    """Samples of a dataset and the classes of their masks."""

    samples: list[SampleView]
    classes: list[dict[str, Any]]


class Ready(BaseModel):
    """Which processes are available."""

    database: bool
    worker: bool
    predictor: bool
    release: str | None  # commit or release of the web process
    worker_release: str | None  # that of the worker; None without a worker
