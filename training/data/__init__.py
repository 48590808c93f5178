"""From the dataset in object storage to a batch: the order of samples, their bytes, their views, tensors."""
