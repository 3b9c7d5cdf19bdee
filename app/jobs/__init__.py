"""The job queue, the worker and the steps that it runs; knows no requests and no pages."""
