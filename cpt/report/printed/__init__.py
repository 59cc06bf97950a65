"""The paper's printed numbers: their arithmetic, and ours beside them."""
