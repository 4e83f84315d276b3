"""Federations compared: arms trained under one budget and scored on the same patients."""
