"""Tables, pictures, pages and progress bars of a simulation."""
