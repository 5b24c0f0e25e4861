"""How many images are evaluated or attacked at once."""

LARGEST_BATCH = 128


def evaluation_batch(training: int) -> int:
    """As many as a step of ``training`` takes, lest evaluating needs more memory than that did, and at most 128."""
    return min(training, LARGEST_BATCH)
