"""Turn raw images and volumes into one published dataset: scan, plan, prepare and verify, on Ray Data."""
