"""A method and a dataset for cpt."""
