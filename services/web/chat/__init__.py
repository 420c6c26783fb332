"""What the gateway and the vision-language service share of dialogues: OpenAI's answers and errors, and our own."""
