"""Published datasets in, cross-dimensional encoders out: order, readers, views, methods, the loop, and its proof of worth."""
