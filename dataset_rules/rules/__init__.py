"""The rules document in both forms, and path templates; never opens a source."""
