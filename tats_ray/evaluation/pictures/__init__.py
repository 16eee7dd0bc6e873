"""What trained networks make of single clips, for people to look at."""
