"""What ``import crossdim`` offers: published datasets as Python objects, batches of tensors, trained encoders.

Names are looked up in :mod:`crossdim`, which imports the modules here when a name is first used.
"""
