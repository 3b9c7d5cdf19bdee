"""The job queue, the worker and its steps; independent of requests and pages."""
