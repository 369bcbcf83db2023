"""Everything that makes the embedded model: its world, its training and its evaluation."""
