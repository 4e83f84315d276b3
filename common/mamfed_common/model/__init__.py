"""The paper's network and its losses."""
