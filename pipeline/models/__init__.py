"""What the JSON files of a model directory say: config.json, generation_config.json, the tokenizer."""
