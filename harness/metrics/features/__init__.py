"""Feature spaces: the networks whose features are compared, one file each."""
