"""Policy pack: what no stack may do, whoever wrote its program."""
