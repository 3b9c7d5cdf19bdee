"""The host program, standard library only; `infra.host_program` packs it."""
