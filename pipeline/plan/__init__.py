"""From a recipe and facts about models, data and host to steps with keys, or to refusals."""
