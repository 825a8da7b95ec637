"""Distances between two sets of features, one file each."""
