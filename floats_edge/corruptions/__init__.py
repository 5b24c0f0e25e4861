"""Common corruptions of images by noise, blur, weather and storing: see severities.py."""

SEVERITIES = range(1, 6)
