"""FLOAT and FLOATS (Kundu et al., arXiv 2204.00426): see README.md in this folder."""
