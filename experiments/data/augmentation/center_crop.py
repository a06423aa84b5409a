"""The square in the middle of an image."""

from PIL import Image


def center_crop(image, shorter, size):
    """Resizes an image to a shorter side of ``shorter`` and crops the middle.

    Args:
        image (PIL.Image.Image): The image.
        shorter (int): Its shorter side after resizing.
        size (int): Side of the result, at most ``shorter``.
    """
    width, height = image.size
    scale = shorter / min(width, height)
    width, height = max(shorter, round(width * scale)), max(shorter, round(height * scale))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
