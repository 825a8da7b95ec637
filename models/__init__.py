"""What is measured: DiT and DiM, one skeleton, one size table."""
