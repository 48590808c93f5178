"""The training loop and its state, in plain PyTorch."""
