"""Choices of how videos are read, which recipes differ in. See harness.data.videos."""

REFUSE, SPREAD = SHORT_VIDEOS = ("refuse", "spread")
"""What is done with a video of fewer frames than a clip spans: none of it, or the clip is spread over what there is."""
BY_SIZE, BY_SCALE = RESIZES = ("size", "scale-factor")
"""Which of the two torch's `interpolate` is given."""
