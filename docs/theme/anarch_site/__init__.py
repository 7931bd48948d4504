"""How the documentation becomes a site: what is made of the code, and what has to be different from what a code host shows."""
