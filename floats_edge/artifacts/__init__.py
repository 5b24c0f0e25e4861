"""What passes between stages: checkpoints, bundles and records."""
