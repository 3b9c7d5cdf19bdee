"""The machine's own program, of the standard library alone; `infra.host_program` packs it."""
