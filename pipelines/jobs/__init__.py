"""The jobs, on Ray Data: scan, plan, prepare, verify."""
