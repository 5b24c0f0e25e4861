"""Methods and sparsities on equal footing: one stage that trains and evaluates them all."""
