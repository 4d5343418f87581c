"""Tasks: what a fine-tuned model is asked, and how its answers are scored."""
