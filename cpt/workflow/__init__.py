"""An experiment that runs: who works on it, how far it is, whether its files fit together."""
