"""A bundle in the shape that other servers take: Triton, DeepStream, ROS 2."""
