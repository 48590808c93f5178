"""Cross-dimensional medical encoders from object storage full of 2D images and 3D volumes."""

__version__ = "0.1.0"
