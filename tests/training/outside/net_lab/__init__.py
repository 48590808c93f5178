"""A package of a laboratory, outside of crossdim: one backbone, one augmentation, one method, one export, and a recipe."""
