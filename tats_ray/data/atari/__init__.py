"""Videos of Atari games: the console, what its memory means, and data sets made of play."""
