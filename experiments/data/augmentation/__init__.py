"""How examples are varied, and made ready for a network: one idea a file.

The files named after a data set or a network hold its recipe, from a stored example to what the
network gets; the others hold the steps. Images are Pillow's while they are resized or recoloured,
and arrays of shape (channels, height, width) otherwise. Boxes are rows (y_min, x_min, y_max, x_max)
of pixel edges: the whole image is (0, 0, height, width).
"""
