"""Tables, figures, report pages and progress bars of simulations."""
