"""Studies: several trainings under one budget on one data set, without a federation."""
