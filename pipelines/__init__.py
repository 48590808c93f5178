"""Raw corpora in, one published dataset out: scan, plan, prepare and verify, on Ray Data."""
