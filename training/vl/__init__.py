"""How the embedded vision-language checkpoint is made."""
