"""The network side: Flower's SuperLink, the TLS listener, and the guard before them."""
