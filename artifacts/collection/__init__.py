"""What a store holds, who uses it, and what may go."""
