"""How alike two sets of images are: recipes, feature extractors, streaming statistics, distances."""
