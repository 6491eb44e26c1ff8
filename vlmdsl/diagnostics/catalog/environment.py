"""V09: the environment a program runs in."""
