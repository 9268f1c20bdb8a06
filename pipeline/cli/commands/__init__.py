"""The commands, by what people come to do; imported only when one is called."""
