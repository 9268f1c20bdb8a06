"""What proposes tokens to a model: EAGLE and Medusa heads, draft models, lookahead."""
