#!/usr/bin/env python3
"""Print the likeliest class of an image at one lambda, through the C interface of floats_rt. It needs Pillow alone.

usage: FLOATS_RT=build/libfloats_rt.so classify.py BUNDLE IMAGE LAMBDA
"""

import ctypes as c
import os
import sys

from PIL import Image, ImageOps

RGB = 0


class ImageView(c.Structure):
    """floats_rt_image_view."""

    _fields_ = (
        *(("data", c.c_char_p), ("height", c.c_size_t), ("width", c.c_size_t), ("stride", c.c_size_t)),
        ("colours", c.c_int32),
    )


def main(bundle: str, image: str, lam: float) -> None:
    """Classify one image."""
    rt = c.CDLL(os.environ.get("FLOATS_RT", "libfloats_rt.so"))
    rt.floats_rt_label.restype = rt.floats_rt_last_error.restype = c.c_char_p
    rt.floats_rt_label_count.restype = c.c_size_t

    def check(status: int) -> None:
        if status:
            sys.exit(rt.floats_rt_last_error().decode())

    model = c.c_void_p()
    check(rt.floats_rt_load(os.fsencode(bundle), None, c.byref(model)))
    check(rt.floats_rt_set_lambda(model, c.c_float(lam)))
    picture = ImageOps.exif_transpose(Image.open(image)).convert("RGB")
    view = ImageView(picture.tobytes(), picture.height, picture.width, 0, RGB)
    logits = (c.c_float * rt.floats_rt_label_count(model))()
    check(rt.floats_rt_infer_images(model, c.byref(view), c.c_size_t(1), logits, c.c_size_t(len(logits))))
    print(rt.floats_rt_label(model, c.c_size_t(max(range(len(logits)), key=lambda i: logits[i]))).decode())
    rt.floats_rt_free(model)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
