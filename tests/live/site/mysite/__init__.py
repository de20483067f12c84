"""A small site with one view for each thing that the live tests look at."""
