"""How a round's updates become new weights: FedAvg and its relatives, behind one protocol."""
