"""OpenAI's own shapes: dialogues, videos and files as its SDK reads them."""
