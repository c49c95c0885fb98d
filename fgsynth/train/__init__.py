"""Training of classifiers: recipe, loop, objectives, second stages."""
