"""Bodies of requests and answers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.queue import State

MAX_TRAINING_S = 14 * 24 * 3600


# Ids and aliases; what cannot be one is refused before it is looked up.
Id = Annotated[str, Field(max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]


class Body(BaseModel):
    """A body of a request: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class SourceRequest(Body):
    """Fetch an archive and keep its files as a source."""

    url: str = Field(
        max_length=2000, description="https address, with #sha256= or #md5= at its end if known"
    )


class DoctorRequest(Body):
    """Examine a source, by rules where they are given."""

    rules: Id | None = Field(default=None, description="id of stored rules")


class DatasetRequest(Body):
    """Format a source by rules."""

    source: Id = Field(description="id of a source")
    rules: Id = Field(description="id of stored rules")


class RunRequest(Body):
    """Train on a dataset."""

    dataset: Id = Field(description="id of a dataset, or of the job that makes it")
    time_limit_s: float = Field(ge=1, le=MAX_TRAINING_S, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**32)


class Made(BaseModel):
    """The answer of every POST that makes something; `id` of a job stands for what it makes."""

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
    paper: dict[str, str] | None = Field(description="null where that form cannot say it")


class ArtifactView(BaseModel):
    """Something finished."""

    id: str
    kind: str
    record: str | None
    label: str
    facts: dict[str, Any]
    job: str | None
    created_at: datetime
    links: dict[str, str]


class ModelView(ArtifactView):
    """A model and the names that point to it."""

    aliases: list[str]


class JobView(BaseModel):
    """A job: `progress.share` goes from 0 to 1 where it is known."""

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
    """Something that a job said."""

    id: int
    at: datetime
    event: str
    data: dict[str, Any]


class Events(BaseModel):
    """Events of a job; ask again with `after` = `next` for those that follow."""

    events: list[EventView]
    next: int
    status: State


class RunView(BaseModel):
    """A run: how its job goes, and the model that came of it."""

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
    """The alias and the model that it points to now."""

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
    """Which parts are there."""

    database: bool
    worker: bool
    predictor: bool
    release: str | None  # commit or release that this web process runs
    worker_release: str | None  # and the one that the worker runs; None without a worker
