"""The rules document in both forms, and path templates; opens no source."""
