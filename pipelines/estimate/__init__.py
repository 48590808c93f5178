"""``prepare --plan``: what a preparation will take, from its plan and a small sample of its own inputs. It writes nothing."""
