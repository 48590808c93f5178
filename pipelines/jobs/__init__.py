"""The work itself, on Ray Data: scan, plan, prepare, verify."""
