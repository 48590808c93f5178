"""From the bucket to a batch: which sample, its bytes, its views, its place in a tensor."""
