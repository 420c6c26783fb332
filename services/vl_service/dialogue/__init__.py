"""Dialogues: replies to the last of several turns, piece by piece, in our own wire and in OpenAI's."""
